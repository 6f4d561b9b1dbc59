//! The verdicts of `controller test` as JUnit's XML, which most CI systems show.

use std::fs::File;
use std::path::Path;

use quick_junit::{NonSuccessKind, Report as Document, TestCase, TestCaseStatus, TestSuite};

use super::super::error::CliError;
use super::test::TestReport;

/// Writes a suite for each scenario, with a case for each expectation.
pub(super) fn write(path: &Path, report: &TestReport) -> Result<(), CliError> {
    let mut document = Document::new(format!("tidegate controller test {}", report.controller));
    for tried in &report.scenarios {
        let mut suite = TestSuite::new(tried.name.as_str());
        for verdict in &tried.expectations {
            let status = match &verdict.first {
                _ if verdict.met => TestCaseStatus::success(),
                first => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(format!("{}; expected {}", verdict.measured, verdict.expected));
                    if let Some(first) = first {
                        status.set_description(format!("first {first}"));
                    }
                    status
                }
            };
            suite.add_test_case(TestCase::new(verdict.expectation, status));
        }
        document.add_test_suite(suite);
    }
    let failed = || CliError::failure(format!("cannot write {}", path.display()));
    let file = File::create(path).map_err(|error| failed().because(error))?;
    document.serialize(file).map_err(|error| failed().because(error))
}
