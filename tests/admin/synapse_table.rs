//! Every endpoint of Synapse's API, asked by whoever may and may not, in good and in bad words.

use reqwest::{Method, Response};

use super::synapse::{ENABLED, START_JOB, STATUS};
use crate::support::api::{ADMIN, Api, VIEWER, with_tokens};
use crate::support::on_both;
use crate::support::place::Place;

/// What a host of these tests takes, in bytes.
const LIMIT: usize = 2_048;

const NOTHING: &str = "{\"enabled\":true,\"current_updates\":{}}";
const ON: &str = "{\"enabled\":true}";
const NOT_JSON: (u16, &str) = (400, "{\"errcode\":\"M_NOT_JSON\",\"error\":\"Content not JSON.\"}");
const TOO_LARGE: (u16, &str) =
    (413, "{\"errcode\":\"M_TOO_LARGE\",\"error\":\"Request content is too large (>2048)\"}");
const METHOD: (u16, &str) = (405, "{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"Unrecognized request\"}");
const NO_TOKEN: (u16, &str) = (401, "{\"errcode\":\"M_MISSING_TOKEN\",\"error\":\"Missing access token\"}");
const NO_ADMIN: (u16, &str) = (403, "{\"errcode\":\"M_FORBIDDEN\",\"error\":\"You are not a server admin\"}");

/// An endpoint: its methods, right and wrong, and per kind of body what an admin is answered: good, not JSON, wrong
/// type, missing field, too large.
struct Endpoint {
    path: &'static str,
    method: Method,
    wrong_methods: &'static [Method],
    bodies: [&'static str; 4],
    answers: [(u16, &'static str); 5],
}

fn endpoints() -> [Endpoint; 4] {
    const READS: [&str; 4] = ["", "{", "[3]", "{}"];
    [
        Endpoint {
            path: STATUS,
            method: Method::GET,
            wrong_methods: &[Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE],
            bodies: READS,
            answers: [(200, NOTHING); 5],
        },
        Endpoint {
            path: ENABLED,
            method: Method::GET,
            wrong_methods: &[Method::PUT, Method::DELETE, Method::PATCH],
            bodies: READS,
            answers: [(200, ON); 5],
        },
        Endpoint {
            path: ENABLED,
            method: Method::POST,
            wrong_methods: &[Method::PUT],
            bodies: ["{\"enabled\": true}", "enabled", "{\"enabled\": 1}", "{}"],
            answers: [
                (200, ON),
                NOT_JSON,
                (400, "{\"errcode\":\"M_UNKNOWN\",\"error\":\"'enabled' parameter must be a boolean\"}"),
                (200, ON),
                TOO_LARGE,
            ],
        },
        Endpoint {
            path: START_JOB,
            method: Method::POST,
            wrong_methods: &[Method::GET, Method::PUT, Method::DELETE],
            bodies: ["{\"job_name\": \"once\"}", "{'job_name': 'once'}", "{\"job_name\": [\"once\"]}", "{\"name\": 1}"],
            answers: [
                (200, "{}"),
                NOT_JSON,
                (400, "{\"errcode\":\"M_UNKNOWN\",\"error\":\"Invalid job_name\"}"),
                (400, "{\"errcode\":\"M_MISSING_PARAM\",\"error\":\"Missing params: ['job_name']\"}"),
                TOO_LARGE,
            ],
        },
    ]
}

async fn ask(api: &Api, method: &Method, path: &str, token: Option<&str>, body: String) -> Response {
    let request = api.request(method.clone(), path).body(body);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    request.send().await.unwrap()
}

/// The status and the body, once the headers are known to be right.
async fn told(response: Response) -> (u16, String) {
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("cache-control"), Some("no-cache, no-store, must-revalidate"));
    assert_eq!(header("access-control-allow-origin"), Some("*"));
    assert_eq!(header("access-control-allow-methods"), Some("GET, HEAD, POST, PUT, DELETE, OPTIONS"));
    assert_eq!(header("access-control-allow-headers"), Some("X-Requested-With, Content-Type, Authorization, Date"));
    assert_eq!(header("access-control-expose-headers"), Some("Synapse-Trace-Id, Server"));
    (response.status().as_u16(), response.text().await.unwrap())
}

on_both! {
    async fn each_endpoint_answers_each_caller_and_each_body(place: Place) {
        let admin = with_tokens().replace("[admin]\n", &format!("[admin]\nmax_body_bytes = {LIMIT}\n"));
        let job = "[[update]]\nname = \"a\"\nkind = \"noop\"\n[[job]]\nname = \"once\"\nupdate = [{ update = \"a\" }]\n";
        let api = Api::start(place, "", &format!("{job}{admin}")).await;
        let too_large = format!("{}{{}}", " ".repeat(LIMIT));
        for endpoint in endpoints() {
            let [good, bad, wrong, missing] = endpoint.bodies.map(str::to_owned);
            let bodies = [good.clone(), bad, wrong, missing, too_large.clone()];
            for (token, refusal) in [(None, Some(NO_TOKEN)), (Some(VIEWER), Some(NO_ADMIN)), (Some(ADMIN), None)] {
                for (body, answer) in bodies.iter().zip(endpoint.answers) {
                    let (status, text) = refusal.unwrap_or(answer);
                    let response = ask(&api, &endpoint.method, endpoint.path, token, body.clone()).await;
                    let case = format!("{} {} {token:?} {:.40}", endpoint.method, endpoint.path, body);
                    assert_eq!(told(response).await, (status, text.to_owned()), "{case}");
                }
                for method in endpoint.wrong_methods {
                    let response = ask(&api, method, endpoint.path, token, good.clone()).await;
                    assert_eq!(told(response).await, (METHOD.0, METHOD.1.to_owned()), "{method} {}", endpoint.path);
                }
            }
        }
    }
}
