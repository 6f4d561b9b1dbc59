//! Synapse's admin API, asked by a client that was written for Synapse.

use reqwest::Method;
use ruma::api::auth_scheme::{AccessToken, SendAccessToken};
use ruma::api::error::{Error, FromHttpResponseError};
use ruma::api::path_builder::SinglePath;
use ruma::api::{IncomingResponse, IncomingResponseExt, Metadata, OutgoingRequest, OutgoingRequestExt};
use serde_json::json;
use synapse_admin_api::background_updates::status::v1::CurrentUpdate;
use synapse_admin_api::background_updates::{enabled, run, status};
use tidegate::scheduler::database::Pause;

use crate::support::api::{ADMIN, Answer, Api, VIEWER, WITHOUT_TOKENS, with_tokens};
use crate::support::place::{Place, row};
use crate::support::run::make_items;
use crate::support::{on_both, until};

pub const STATUS: &str = "/_synapse/admin/v1/background_updates/status";
pub const ENABLED: &str = "/_synapse/admin/v1/background_updates/enabled";
pub const START_JOB: &str = "/_synapse/admin/v1/background_updates/start_job";

/// Small batches with a sleep between them.
const GENTLY: &str = "sleep_duration_ms = 10\nmax_batch_size = 50\npoll_interval_ms = 50\n";

/// An update of the table `items`.
pub fn backfill(name: &str) -> String {
    format!(
        "[[update]]\nname = \"{name}\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
         set = \"touched = touched + 1\"\n"
    )
}

/// Sends a request of the crate's; an error comes back as the crate shows it.
async fn ask<R>(api: &Api, request: R, token: Option<&str>) -> Result<R::IncomingResponse, String>
where
    R: OutgoingRequest + Metadata<Authentication = AccessToken, PathBuilder = SinglePath>,
    R::IncomingResponse: IncomingResponse<EndpointError = Error>,
{
    let sent = SendAccessToken::IfRequired(token.unwrap_or("nothing"));
    let mut request = request.try_into_http_request::<Vec<u8>>(&api.address, sent, ()).unwrap();
    if token.is_none() {
        request.headers_mut().remove("authorization").unwrap();
    }
    let response = api.send(request.try_into().unwrap()).await;
    let status = response.status();
    let body = response.bytes().await.unwrap();
    let response = axum::http::Response::builder().status(status.as_u16()).body(&body[..]).unwrap();
    R::IncomingResponse::try_from_http_response(response).map_err(|error| match error {
        FromHttpResponseError::Server(error) => error.to_string(),
        other => panic!("{other}: {}", String::from_utf8_lossy(&body)),
    })
}

/// The update in hand, once an item was counted: before that the average is null, which the crate cannot hold.
async fn running(api: &Api) -> CurrentUpdate {
    let counted =
        async || api.get(STATUS, ADMIN).await.json()["current_updates"]["master"]["average_items_per_ms"].is_f64();
    until("an item is counted", counted).await;
    let status = ask(api, status::v1::Request::new(), Some(ADMIN)).await.unwrap();
    status.current_updates["master"].clone()
}

fn start(job: &str) -> run::v1::Request {
    run::v1::Request::new(job.into())
}

on_both! {
    async fn a_client_of_synapse_sees_and_steers_everything(place: Place) {
        make_items(place, 100_000).await;
        let rest = format!("{}{}", backfill("populate_stats_process_rooms"), with_tokens());
        let api = Api::start(place, GENTLY, &rest).await;

        let idle = ask(&api, status::v1::Request::new(), Some(ADMIN)).await.unwrap();
        assert!(idle.enabled && idle.current_updates.is_empty());

        let job = "populate_stats_process_rooms";
        ask(&api, start(job), Some(ADMIN)).await.unwrap();
        let current = running(&api).await;
        assert_eq!(current.name, job);
        assert!(current.total_item_count > 0 && current.total_duration_ms > 0.0 && current.average_items_per_ms > 0.0);
        let refused = |result: Result<run::v1::Response, String>| result.err().unwrap();
        assert_eq!(
            refused(ask(&api, start(job), Some(ADMIN)).await),
            "[400 / M_UNKNOWN] Job populate_stats_process_rooms is already in queue of background updates."
        );
        assert_eq!(refused(ask(&api, start("other"), Some(ADMIN)).await), "[400 / M_UNKNOWN] Invalid job_name");
        assert_eq!(
            refused(ask(&api, start("regenerate_directory"), Some(ADMIN)).await),
            "[400 / M_UNKNOWN] Job regenerate_directory queues update populate_user_directory_createtables, which is \
             not defined for database master."
        );
        for (token, refusal) in [
            (None, "[401 / M_MISSING_TOKEN] Missing access token"),
            (Some("wrong"), "[401 / M_UNKNOWN_TOKEN] Invalid access token passed."),
            (Some(VIEWER), "[403 / M_FORBIDDEN] You are not a server admin"),
        ] {
            assert_eq!(ask(&api, status::v1::Request::new(), token).await.err().unwrap(), refusal);
            assert_eq!(ask(&api, enabled::v1::Request::new(false), token).await.err().unwrap(), refusal);
            assert_eq!(refused(ask(&api, start(job), token).await), refusal);
        }
        assert_eq!(place.rows("select update_name from background_updates").await, [job]);
    }

    async fn nothing_is_done_while_paused(place: Place) {
        make_items(place, 100_000).await;
        let database = place.prepared().await;
        database.enqueue(&row("touch")).await.unwrap();
        let api = Api::start(place, GENTLY, &format!("{}{}", backfill("touch"), with_tokens())).await;
        running(&api).await;

        assert!(!ask(&api, enabled::v1::Request::new(false), Some(ADMIN)).await.unwrap().enabled);
        until("the host rests", async || {
            database.queue().await.unwrap().activity.is_some_and(|activity| activity.first.state.words() == "paused")
        })
        .await;
        let rested = ask(&api, status::v1::Request::new(), Some(ADMIN)).await.unwrap();
        assert!(!rested.enabled);
        let progress = async || place.rows("select progress_json from background_updates").await;
        let before = progress().await;
        for _ in 0..100 {
            let status = ask(&api, status::v1::Request::new(), Some(ADMIN)).await.unwrap();
            assert!(status == rested);
        }
        assert_eq!(progress().await, before);

        assert!(ask(&api, enabled::v1::Request::new(true), Some(ADMIN)).await.unwrap().enabled);
        let done = rested.current_updates["master"].total_item_count;
        until("it goes on", async || running(&api).await.total_item_count > done).await;
    }

    async fn an_update_in_hand_shows_before_its_first_batch(place: Place) {
        make_items(place, 10).await;
        place.prepared().await.enqueue(&row("touch")).await.unwrap();
        let rest = format!("{}{}", backfill("touch"), with_tokens());
        let api = Api::start(place, "sleep_duration_ms = 86_400_000", &rest).await;
        until("it is in hand", async || api.get(STATUS, ADMIN).await.text.contains("touch")).await;
        assert_eq!(
            api.get(STATUS, ADMIN).await.text,
            "{\"enabled\":true,\"current_updates\":{\"master\":{\"name\":\"touch\",\"total_item_count\":0,\
             \"total_duration_ms\":0.0,\"average_items_per_ms\":null}}}"
        );
        let paused = api.post(ENABLED, ADMIN, json!({"enabled": false})).await;
        assert_eq!(paused.text, "{\"enabled\":false}");
        assert_eq!(
            api.get(STATUS, ADMIN).await.text,
            "{\"enabled\":false,\"current_updates\":{\"master\":{\"name\":\"touch\",\"total_item_count\":0,\
             \"total_duration_ms\":0.0,\"average_items_per_ms\":null}}}"
        );
    }

    async fn a_pause_over_http_ends_with_the_host(place: Place) {
        let api = Api::start(place, "", &with_tokens()).await;
        assert_eq!(api.post(ENABLED, ADMIN, json!({"enabled": false})).await.text, "{\"enabled\":false}");
        assert_eq!(api.get(ENABLED, ADMIN).await.text, "{\"enabled\":false}");
        let Api { process, folder, .. } = api;
        drop(process);
        let api = Api::start_in(folder).await;
        assert_eq!(api.get(ENABLED, ADMIN).await.text, "{\"enabled\":true}");
    }

    async fn a_stored_pause_shows_and_is_lifted(place: Place) {
        let database = place.prepared().await;
        let pause = Pause { since_ms: 1_700_000_000_000, reason: None };
        let api = Api::start(place, GENTLY, &with_tokens()).await;
        database.set_pause(Some(&pause)).await.unwrap();
        until("the host knows", async || api.get(ENABLED, ADMIN).await.text == "{\"enabled\":false}").await;
        assert_eq!(api.get(STATUS, ADMIN).await.text, "{\"enabled\":false,\"current_updates\":{}}");
        assert_eq!(api.post(ENABLED, ADMIN, json!({})).await.text, "{\"enabled\":true}");
        assert_eq!(database.queue().await.unwrap().pause, None);
        until("all is known to be enabled", async || api.get(ENABLED, ADMIN).await.text == "{\"enabled\":true}").await;
    }

    async fn without_any_token_everybody_may_look_and_nobody_may_steer(place: Place) {
        let api = Api::start(place, "", WITHOUT_TOKENS).await;
        let refused = "{\"errcode\":\"M_FORBIDDEN\",\"error\":\"No token is configured, so that nobody may change \
                       anything: `tidegate token new --role admin` makes one\"}";
        for (method, path, status, text) in [
            (Method::GET, STATUS, 200, "{\"enabled\":true,\"current_updates\":{}}"),
            (Method::GET, ENABLED, 200, "{\"enabled\":true}"),
            (Method::POST, ENABLED, 403, refused),
            (Method::POST, START_JOB, 403, refused),
        ] {
            for token in [None, Some(ADMIN)] {
                let mut request = api.request(method.clone(), path).body("{\"enabled\": false}");
                if let Some(token) = token {
                    request = request.bearer_auth(token);
                }
                let answer = Answer::of(request.send().await.unwrap()).await;
                assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text), "{method} {path}");
            }
        }
    }
}
