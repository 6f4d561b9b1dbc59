//! What wasmtime generates from the contract, version 0.1.0. A later version gets a file of its own beside this one.

#![allow(missing_docs, unreachable_pub, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../wit/controller.wit",
    world: "controller",
    imports: { default: trappable },
    exports: { default: async },
});

/// The optional `default-batch-size`.
pub(super) mod default_batch_size {
    wasmtime::component::bindgen!({
        path: "../../wit/controller.wit",
        world: "with-default-batch-size",
        exports: { default: async },
    });
}

/// The optional `min-batch-size`.
pub(super) mod min_batch_size {
    wasmtime::component::bindgen!({
        path: "../../wit/controller.wit",
        world: "with-min-batch-size",
        exports: { default: async },
    });
}

/// The contract with handlers, version 0.1.0.
pub(super) mod handler {
    wasmtime::component::bindgen!({
        path: "../../wit/handler.wit",
        world: "transform",
        imports: { default: trappable },
        exports: { default: async },
    });
}
