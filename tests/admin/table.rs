//! Every endpoint, asked by everybody, with every kind of body: who may do what, and what is said to the rest.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{SLOW, UPDATES, with_updates};
use crate::support::api::{ADMIN, Answer, Api, VIEWER, WITHOUT_TOKENS};
use crate::support::place::Place;
use crate::support::run::make_items;
use crate::support::{on_both, until};

/// What an endpoint takes.
#[derive(Clone, Copy, PartialEq)]
enum Takes {
    /// Nothing; it only tells.
    Look,
    /// Nothing; it does something.
    Steer,
    /// A body, which there has to be.
    Body,
    /// A body, or none.
    MaybeBody,
}

/// The endpoints: method, path, what it takes, a good body, and what an admin is told.
const ENDPOINTS: &[(&str, &str, Takes, &str, u16)] = &[
    ("GET", "/host", Takes::Look, "", 200),
    ("GET", "/databases", Takes::Look, "", 200),
    ("GET", "/databases/master", Takes::Look, "", 200),
    ("GET", "/databases/unknown", Takes::Look, "", 404),
    ("GET", "/databases/master/updates", Takes::Look, "", 200),
    ("GET", "/databases/unknown/updates", Takes::Look, "", 404),
    ("GET", "/databases/master/updates/touch_items", Takes::Look, "", 200),
    ("GET", "/databases/master/updates/touch_items?iterations=5", Takes::Look, "", 200),
    ("GET", "/databases/master/updates/touch_items?iterations=1001", Takes::Look, "", 400),
    ("GET", "/databases/master/updates/touch_items?iterations=x", Takes::Look, "", 400),
    ("GET", "/databases/master/updates/touch_items?nonsense=1", Takes::Look, "", 400),
    ("GET", "/databases/master/updates/unknown", Takes::Look, "", 404),
    ("GET", "/databases/master/updates/a%00b", Takes::Look, "", 404),
    ("GET", "/databases/%FF", Takes::Look, "", 404),
    ("GET", "/controllers", Takes::Look, "", 200),
    ("GET", "/signals", Takes::Look, "", 200),
    ("GET", "/databases/master/signals", Takes::Look, "", 200),
    ("GET", "/databases/unknown/signals", Takes::Look, "", 404),
    ("GET", "/events?database=unknown", Takes::Look, "", 404),
    ("GET", "/events?nonsense=1", Takes::Look, "", 400),
    // While nothing is queued.
    ("POST", "/databases/master/run-now", Takes::Steer, "", 409),
    ("POST", "/databases/master/updates", Takes::Body, r#"{"name": "touch_items"}"#, 201),
    ("POST", "/databases/unknown/updates", Takes::Steer, r#"{"name": "touch_items"}"#, 404),
    ("POST", "/databases/master/updates/touch_items/retry", Takes::Steer, "", 200),
    ("POST", "/databases/master/updates/unknown/retry", Takes::Steer, "", 404),
    ("POST", "/databases/master/updates/touch_items/accept", Takes::Steer, "", 200),
    ("POST", "/databases/master/updates/unknown/accept", Takes::Steer, "", 404),
    ("POST", "/databases/unknown/run-now", Takes::Steer, "", 404),
    ("DELETE", "/databases/master/updates/touch_items", Takes::Steer, "", 200),
    ("DELETE", "/databases/master/updates/touch_items?with_dependents=maybe", Takes::Steer, "", 400),
    ("POST", "/databases/master/pause", Takes::MaybeBody, r#"{"persist": true, "reason": "x"}"#, 200),
    ("POST", "/databases/master/resume", Takes::Steer, "", 200),
    ("POST", "/pause", Takes::MaybeBody, r#"{"persist": false}"#, 200),
    ("POST", "/resume", Takes::Steer, "", 200),
    ("POST", "/controllers/unknown/reload", Takes::Steer, "", 404),
    ("POST", "/reload", Takes::Steer, "", 200),
];

/// Bytes that a body may have in these tests.
const MOST: usize = 2_000;

struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    token: Option<&'a str>,
    body: Option<(&'a str, Vec<u8>)>,
}

async fn ask(api: &Api, asked: Asked<'_>) -> Response {
    let mut request = api.request(asked.method.parse().unwrap(), &format!("/api/v1{}", asked.path));
    if let Some(token) = asked.token {
        request = request.bearer_auth(token);
    }
    if let Some((content_type, body)) = asked.body {
        request = request.header("content-type", content_type).body(body);
    }
    request.send().await.unwrap()
}

/// Holds an answer that is a problem to what all problems are held to.
async fn problem(response: Response, status: u16, what: &str) -> Value {
    let challenge = response.headers().get("www-authenticate").cloned();
    let allow = response.headers().get("allow").cloned();
    let answer = Answer::of(response).await;
    assert_eq!(answer.status.as_u16(), status, "{what}: {}", answer.text);
    assert_eq!(answer.content_type, "application/problem+json", "{what}");
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{what}");
    assert!(problem["type"].as_str().unwrap().starts_with("urn:tidegate:problem:"), "{what}: {problem}");
    assert!(
        !problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty(),
        "{what}"
    );
    assert_eq!(challenge.is_some(), status == 401, "{what}: a challenge comes with 401");
    assert_eq!(allow.is_some(), status == 405, "{what}: the methods come with 405");
    problem
}

async fn start(place: &Place) -> Api {
    make_items(place, 10).await;
    let rest = with_updates().replacen("[admin]\n", &format!("[admin]\nmax_body_bytes = {MOST}\n"), 1);
    let api = Api::start(place, SLOW, &rest).await;
    until("the host works", async || api.get("/api/v1/databases/master", VIEWER).await.json()["lease"] == "runner")
        .await;
    api
}

on_both! {
    async fn everybody_is_answered_as_the_role_and_the_request_deserve(place: Place) {
        let api = start(place).await;
        for &(method, path, takes, good, status) in ENDPOINTS {
            let what = |who: &str, body: &str| format!("{method} {path} by {who} with {body}");
            let bodies = bodies(takes, good);
            for (name, body, admin) in &bodies {
                let asked = |token| Asked { method, path, token, body: body.clone() };
                problem(ask(&api, asked(None)).await, 401, &what("nobody", name)).await;
                let unknown = problem(ask(&api, asked(Some("wrong"))).await, 401, &what("a stranger", name)).await;
                assert_eq!(unknown["type"], "urn:tidegate:problem:unknown-token");
                if takes != Takes::Look {
                    problem(ask(&api, asked(Some(VIEWER))).await, 403, &what("a viewer", name)).await;
                }
                let expected = admin.unwrap_or(status);
                let by = if takes == Takes::Look { VIEWER } else { ADMIN };
                let response = ask(&api, asked(Some(by))).await;
                if expected >= 400 {
                    problem(response, expected, &what("who may", name)).await;
                } else {
                    assert_eq!(response.status().as_u16(), expected, "{}: {}", what("who may", name), response.text().await.unwrap());
                }
            }
            // The path is looked at before the token.
            problem(ask(&api, Asked { method: "PATCH", path, token: None, body: None }).await, 405, path).await;
        }
        let nowhere = Asked { method: "GET", path: "/nowhere", token: None, body: None };
        problem(ask(&api, nowhere).await, 404, "/nowhere").await;
    }
}

/// Bodies by name, each with what whoever may steer is told; `None` for what good ones are told. The good one is last.
#[expect(clippy::type_complexity, reason = "it is a table")]
fn bodies(takes: Takes, good: &str) -> Vec<(&'static str, Option<(&'static str, Vec<u8>)>, Option<u16>)> {
    const JSON: &str = "application/json";
    let text = |body: &str| body.as_bytes().to_vec();
    let good_one = ("a good body", (!good.is_empty()).then(|| (JSON, text(good))), None);
    if matches!(takes, Takes::Look | Takes::Steer) {
        return vec![good_one];
    }
    let mut bodies = vec![
        ("no JSON", Some((JSON, text("{\"name\": "))), Some(400)),
        ("no UTF-8", Some((JSON, b"{\"name\": \"\xff\"}".to_vec())), Some(400)),
        ("NaN", Some((JSON, text("{\"ordering\": NaN}"))), Some(400)),
        ("a list", Some((JSON, text("[5]"))), Some(422)),
        ("an empty list", Some((JSON, text(" []"))), Some(422)),
        ("a wrong type", Some((JSON, text("{\"name\": 5, \"reason\": 5}"))), Some(422)),
        ("a field too many", Some((JSON, text("{\"nonsense\": 5}"))), Some(422)),
        ("another content type", Some(("text/plain", text(good))), Some(415)),
        ("too much", Some((JSON, vec![b' '; MOST + 1])), Some(413)),
    ];
    match takes {
        Takes::Body => {
            bodies.push(("a field missing", Some((JSON, text("{}"))), Some(422)));
            bodies.push(("nothing", None, Some(415)));
        }
        _ => bodies.push(("nothing", None, None)),
    }
    bodies.push(good_one);
    bodies
}

#[tokio::test]
async fn without_any_token_everybody_may_look_and_nobody_may_steer() {
    let place = Place::sqlite();
    let api = Api::start(&place, SLOW, &format!("{WITHOUT_TOKENS}{UPDATES}")).await;
    for &(method, path, takes, ..) in ENDPOINTS {
        for token in [None, Some(ADMIN)] {
            let response = ask(&api, Asked { method, path, token, body: None }).await;
            if takes == Takes::Look {
                assert!(![401, 403].contains(&response.status().as_u16()), "{method} {path}");
            } else {
                let refused = problem(response, 403, path).await;
                assert!(refused["hint"].as_str().unwrap().contains("tidegate token new"), "{refused}");
            }
        }
    }
    let host = Answer::of(api.request(Method::GET, "/api/v1/host").send().await.unwrap()).await.json();
    assert_eq!((&host["product"], &host["role"]), (&json!("tidegate"), &json!("viewer")));
}

#[tokio::test]
async fn a_token_comes_in_one_header_of_the_scheme_bearer() {
    let place = Place::sqlite();
    let api = Api::start(&place, SLOW, &with_updates()).await;
    let lower_case = format!("bearer {VIEWER}");
    let two = [format!("Bearer {VIEWER}"), format!("Bearer {VIEWER}")];
    for (headers, status) in [
        (vec![lower_case.as_str()], 200),
        (vec!["Basic YTpi"], 401),
        (vec!["Bearer"], 401),
        (vec!["Bearer "], 401),
        (vec![VIEWER], 401),
        (vec![two[0].as_str(), two[1].as_str()], 401),
    ] {
        let mut request = api.request(Method::GET, "/api/v1/host");
        for header in &headers {
            request = request.header("authorization", *header);
        }
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{headers:?}");
    }
    let in_the_address = api.request(Method::GET, &format!("/api/v1/host?access_token={VIEWER}")).send().await.unwrap();
    assert_eq!(in_the_address.status(), StatusCode::UNAUTHORIZED);
}
