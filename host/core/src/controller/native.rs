//! Controllers written in Rust, for programs that embed the crate.

use std::panic::AssertUnwindSafe;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::{Admission, Callback, Controller, Fault, FaultKind, Inputs, Iteration, Outcome, Source, Subject, Usage};

/// A source of controllers written in Rust: a name, and a function that makes one. A controller that panics in a
/// callback is at fault as a component that traps is: it is thrown away, and the next iteration has a new one.
///
/// ```
/// use std::time::Duration;
/// use async_trait::async_trait;
/// use tidegate::controller::{Admission, Controller, Fault, Iteration, Native, Outcome, Subject};
///
/// /// Aims at 50 ms, without rests.
/// struct Eager;
///
/// #[async_trait]
/// impl Controller for Eager {
///     async fn on_update(&mut self, _: &Subject) -> Result<Box<dyn Iteration>, Fault> {
///         Ok(Box::new(Eager))
///     }
/// }
///
/// #[async_trait]
/// impl Iteration for Eager {
///     async fn enter(&mut self) -> Result<Admission, Fault> {
///         Ok(Admission::Run(Duration::from_millis(50)))
///     }
///     async fn exit(&mut self, _: &Outcome) -> Result<(), Fault> {
///         Ok(())
///     }
/// }
///
/// let source = Native::new("eager", |_database_name: &str| Eager);
/// ```
pub struct Native<F> {
    name: String,
    make: F,
}

impl<F, C> Native<F>
where
    F: Fn(&str) -> C + Send + Sync,
    C: Controller + 'static,
{
    /// A source under this name. `make` is given the name of a database and makes its controller: when the host first
    /// needs it, and again after a fault that costs a controller its life.
    pub fn new(name: impl Into<String>, make: F) -> Self {
        Self { name: name.into(), make }
    }
}

#[async_trait]
impl<F, C> Source for Native<F>
where
    F: Fn(&str) -> C + Send + Sync,
    C: Controller + 'static,
{
    fn name(&self) -> &str {
        &self.name
    }

    async fn start(&self, database_name: &str) -> Result<Box<dyn Controller>, Fault> {
        let controller: Box<dyn Controller> = Box::new((self.make)(database_name));
        Ok(Box::new(Guarded(controller)))
    }
}

/// A controller whose panics are faults: one bad controller must not end the host.
struct Guarded<C: ?Sized>(Box<C>);

#[async_trait]
impl Controller for Guarded<dyn Controller> {
    async fn on_update(&mut self, subject: &Subject) -> Result<Box<dyn Iteration>, Fault> {
        let iteration = caught(Callback::OnUpdate, self.0.on_update(subject)).await?;
        Ok(Box::new(Guarded(iteration)))
    }

    async fn default_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        caught(Callback::DefaultBatchSize, self.0.default_batch_size(update_name, database_name)).await
    }

    async fn min_batch_size(&mut self, update_name: &str, database_name: &str) -> Result<Option<u32>, Fault> {
        caught(Callback::MinBatchSize, self.0.min_batch_size(update_name, database_name)).await
    }

    fn take_usage(&mut self) -> Option<Usage> {
        self.0.take_usage()
    }

    fn take_inputs(&mut self) -> Inputs {
        self.0.take_inputs()
    }
}

#[async_trait]
impl Iteration for Guarded<dyn Iteration> {
    async fn enter(&mut self) -> Result<Admission, Fault> {
        caught(Callback::Enter, self.0.enter()).await
    }

    async fn exit(&mut self, outcome: &Outcome) -> Result<(), Fault> {
        caught(Callback::Exit, self.0.exit(outcome)).await
    }

    async fn close(self: Box<Self>) -> Result<(), Fault> {
        caught(Callback::Drop, self.0.close()).await
    }
}

/// Turns a panic into a fault that costs the controller its life.
async fn caught<T>(callback: Callback, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Fault { kind: FaultKind::Trap, callback, message: format!("the controller panicked: {message}") })
    })
}
