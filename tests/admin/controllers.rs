//! Controllers over the API: which is live, why another is not, and reloads.

use reqwest::Method;
use serde_json::{Value, json};

use super::FAST;
use crate::support::api::{ADMIN, Answer, Api, VIEWER, with_tokens};
use crate::support::binary::Folder;
use crate::support::components::Guest;
use crate::support::place::Place;
use crate::support::{on_both, until};

const CONTROLLERS: &str = "\n[[controller]]\nname = \"steady\"\npath = \"steady.wasm\"\n
[[controller]]\nname = \"late\"\npath = \"steady.wasm\"\n";

/// A host with both controllers; the second comes too late for any database.
async fn start(place: &Place) -> Api {
    let folder = Folder::new(place, FAST, "", &format!("{}{CONTROLLERS}", with_tokens()));
    folder.write("steady.wasm", Guest::new().component());
    Api::start_in(folder).await
}

async fn controllers(api: &Api) -> Value {
    api.get("/api/v1/controllers", VIEWER).await.json()["controllers"].clone()
}

async fn reload(api: &Api, path: &str) -> Answer {
    Answer::of(api.request(Method::POST, path).bearer_auth(ADMIN).send().await.unwrap()).await
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    tidegate_admin::access::hex(&sha2::Sha256::digest(bytes))
}

on_both! {
    async fn a_controller_is_told_with_what_it_is_and_one_that_is_not_live_with_the_reason(place: Place) {
        let api = start(place).await;
        until("the first is live", async || controllers(&api).await[0]["live"] == true).await;
        let told = controllers(&api).await;
        assert_eq!(told[0]["component"]["sha256"], sha256(&Guest::new().component()));
        assert_eq!(told[0]["component"]["wit_version"], "0.1.0");
        assert_eq!(told[0]["databases"][0]["database"], "master");
        assert_eq!(told[1]["live"], false);
        assert!(told[1]["not_live_because"].as_str().unwrap().contains("come first"), "{told}");
        assert_eq!(api.get("/api/v1/controllers", VIEWER).await.json()["built_in"], json!([]));
    }

    async fn a_controller_is_reloaded_alone_or_with_all_the_rest_or_not_at_all(place: Place) {
        let api = start(place).await;
        until("the first is live", async || controllers(&api).await[0]["live"] == true).await;
        let first = sha256(&Guest::new().component());
        let digest = async || controllers(&api).await[0]["component"]["sha256"].as_str().unwrap().to_owned();
        // A broken file leaves the old one in force, and says so.
        api.folder.write("steady.wasm", b"nonsense");
        for path in ["/api/v1/controllers/steady/reload", "/api/v1/reload"] {
            let refused = reload(&api, path).await;
            assert_eq!(refused.status, 409, "{}", refused.text);
            assert!(refused.json()["errors"][0].as_str().unwrap().contains("steady"), "{}", refused.text);
            assert_eq!(digest().await, first);
        }
        let second = Guest::new().enter("(call $run (i32.const 50))".to_owned()).component();
        api.folder.write("steady.wasm", &second);
        let reloaded = reload(&api, "/api/v1/controllers/steady/reload").await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.text);
        assert_eq!(digest().await, sha256(&second));
        // The other was not read again.
        assert_eq!(controllers(&api).await[1]["component"]["sha256"], first);
        assert_eq!(reload(&api, "/api/v1/reload").await.status, 200);
        assert_eq!(controllers(&api).await[1]["component"]["sha256"], sha256(&second));
        assert_eq!(reload(&api, "/api/v1/controllers/unheard_of/reload").await.status, 404);
    }
}
