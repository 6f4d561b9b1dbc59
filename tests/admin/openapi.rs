//! The API's own description.

use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use super::{FAST, with_updates};
use crate::support::api::{Answer, Api};
use crate::support::command::Site;
use crate::support::place::Place;

#[tokio::test]
async fn the_document_that_is_checked_in_is_the_one_that_is_printed_and_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let printed = Site::new("").tidegate(&["openapi"]).await;
    assert_eq!((printed.code, printed.err.as_str()), (0, ""));
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == printed.out,
        "docs/openapi.json is out of date: `tidegate openapi > docs/openapi.json` writes it"
    );
    let place = Place::sqlite();
    let api = Api::start(&place, FAST, &with_updates()).await;
    let served = Answer::of(api.request(Method::GET, "/api/v1/openapi.json").send().await.unwrap()).await;
    assert_eq!((served.content_type.as_str(), &served.text), ("application/json", &printed.out));
}

#[test]
fn every_answer_of_every_operation_is_described() {
    let document: Value = serde_json::from_str(tidegate_admin::api::openapi()).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with("/api/v1/"), "{path}");
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            operations += 1;
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{what}");
            assert!(responses.contains_key("503"), "{what}");
            let open = path.ends_with("openapi.json");
            assert_eq!(responses.contains_key("401"), !open, "{what}");
            assert_eq!(responses.contains_key("403"), method != "get", "{what}");
            assert_eq!(
                responses.contains_key("404"),
                path.contains('{') || ["/events", "/require"].iter().any(|end| path.ends_with(end)),
                "{what}"
            );
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{what}");
        }
    }
    assert_eq!(operations, 25);
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name} is not described");
    }
}
