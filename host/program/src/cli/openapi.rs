//! `tidegate openapi`.

use tidegate_admin::api;

use super::error::CliError;
use super::output;

/// Print the OpenAPI document of the API that a running host has
#[derive(Debug, clap::Args)]
pub(super) struct OpenApi {}

impl OpenApi {
    pub(super) fn execute(self) -> Result<(), CliError> {
        output::print(api::openapi().trim_end())
    }
}
