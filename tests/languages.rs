//! The tutorials and the controllers in the languages whose tools come from package registries: `make test-languages`. Not
//! a part of `make test`, and a binary of its own for that.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/tutorial.rs"]
mod tutorial;

use tutorial::follow;

#[test]
fn the_tutorial_in_javascript_works_as_it_is_written() {
    follow("javascript");
}

#[test]
fn the_tutorial_in_python_works_as_it_is_written() {
    follow("python");
}

#[test]
fn the_tutorial_in_assemblyscript_works_as_it_is_written() {
    follow("assemblyscript");
}

#[test]
fn the_tutorial_in_go_works_as_it_is_written() {
    follow("go");
}

#[test]
fn the_tutorial_in_zig_works_as_it_is_written() {
    follow("zig");
}
