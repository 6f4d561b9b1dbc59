//! Synapse's API, byte by byte: what clients' libraries would put right before it is sent.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::synapse::{ENABLED, START_JOB, STATUS};
use crate::support::api::{ADMIN, Api, with_tokens};
use crate::support::place::Place;

const ON: &str = "{\"enabled\":true}";
const UNRECOGNIZED: &str = "{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"Unrecognized request\"}";
const UNKNOWN_TOKEN: &str =
    "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"error\":\"Invalid access token passed.\",\"soft_logout\":false}";
const INVALID_HEADER: &str = "{\"errcode\":\"M_MISSING_TOKEN\",\"error\":\"Invalid Authorization header.\"}";
const NO_TOKEN: &str = "{\"errcode\":\"M_MISSING_TOKEN\",\"error\":\"Missing access token\"}";
const NOT_JSON: &str = "{\"errcode\":\"M_NOT_JSON\",\"error\":\"Content not JSON.\"}";
const NOT_OBJECT: &str = "{\"errcode\":\"M_BAD_JSON\",\"error\":\"Content must be a JSON object.\"}";

/// A host, and what must outlive it.
async fn host() -> (Api, Place) {
    let place = Place::sqlite();
    (Api::start(&place, "", &with_tokens()).await, place)
}

fn authorization() -> String {
    format!("Authorization: Bearer {ADMIN}\r\n")
}

/// An answer as it came.
struct Raw {
    status: u16,
    head: String,
    body: String,
}

/// Sends bytes over a connection of their own; the request closes it.
async fn send(api: &Api, request: &[u8]) -> Raw {
    let mut stream = TcpStream::connect(api.address.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Raw { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn head(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: tidegate\r\nConnection: close\r\n{headers}\r\n")
}

async fn get(api: &Api, target: &str, headers: &[u8]) -> (u16, String) {
    let head = head("GET", target, "");
    let (start, end) = head.split_at(head.len() - 2);
    let Raw { status, body, .. } = send(api, &[start.as_bytes(), headers, end.as_bytes()].concat()).await;
    (status, body)
}

async fn post(api: &Api, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let headers = format!("{}{headers}Content-Length: {}\r\n", authorization(), body.len());
    let Raw { status, body, .. } = send(api, &[head("POST", target, &headers).as_bytes(), body].concat()).await;
    (status, body)
}

#[tokio::test]
async fn a_path_is_exactly_as_it_is_written() {
    let (api, _place) = host().await;
    let base = "/_synapse/admin/v1/background_updates";
    let wrong = [
        "/_synapse".to_owned(),
        "/_synapse/".to_owned(),
        "/_synapse/admin/v1".to_owned(),
        "/_synapse/admin/v1/rooms".to_owned(),
        "/_synapse/admin/v2/background_updates/status".to_owned(),
        base.to_owned(),
        format!("{base}/"),
        format!("{base}/status/"),
        format!("{base}/status//"),
        format!("{base}//status"),
        format!("{base}/./status"),
        format!("{base}/x/../status"),
        format!("{base}/Status"),
        format!("{base}/status;a"),
        format!("{base}/statuses"),
        format!("{base}/%73tatus"),
        format!("{base}/status%2F"),
        format!("{base}/status%ff"),
        format!("{base}/status%3Faccess_token=a"),
        "/_synapse//admin/v1/background_updates/status".to_owned(),
        "//_synapse/admin/v1/background_updates/status".to_owned(),
        "/%5Fsynapse/admin/v1/background_updates/status".to_owned(),
        "/_synapse/admin/v1/background%5Fupdates/status".to_owned(),
    ];
    for path in wrong {
        for headers in [String::new(), authorization()] {
            assert_eq!(get(&api, &path, headers.as_bytes()).await, (404, UNRECOGNIZED.to_owned()), "{path}");
        }
        assert_eq!(post(&api, &path, "", b"{}").await, (404, UNRECOGNIZED.to_owned()), "{path}");
    }
    let target = format!("{}{STATUS}", api.address);
    assert_eq!(get(&api, &target, authorization().as_bytes()).await.0, 200, "a proxy may send the whole address");
}

#[tokio::test]
async fn a_token_is_found_where_synapse_finds_it() {
    let (api, _place) = host().await;
    let admin = ADMIN.replace('\'', "%27");
    let mixed = "{\"errcode\":\"M_MISSING_TOKEN\",\
                 \"error\":\"Mixing Authorization headers and access_token query parameters.\"}";
    let several = "{\"errcode\":\"M_MISSING_TOKEN\",\"error\":\"Too many Authorization headers.\"}";
    let cases: Vec<(String, Vec<u8>, u16, &str)> = [
        ("", format!("Authorization: Bearer {ADMIN}"), 200, ON),
        ("", format!("aUTHORIZATION:Bearer {ADMIN}  "), 200, ON),
        ("", String::new(), 401, NO_TOKEN),
        ("", "Authorization:".to_owned(), 401, INVALID_HEADER),
        ("", "Authorization: Bearer".to_owned(), 401, INVALID_HEADER),
        ("", "Authorization: Bearer ".to_owned(), 401, INVALID_HEADER),
        ("", format!("Authorization: bearer {ADMIN}"), 401, INVALID_HEADER),
        ("", format!("Authorization: Basic {ADMIN}"), 401, INVALID_HEADER),
        ("", format!("Authorization: {ADMIN}"), 401, INVALID_HEADER),
        ("", format!("Authorization: Bearer  {ADMIN}"), 401, INVALID_HEADER),
        ("", format!("Authorization: Bearer {ADMIN} x"), 401, INVALID_HEADER),
        ("", format!("Authorization: Bearer\t{ADMIN}"), 401, INVALID_HEADER),
        ("", format!("Authorization: Bearer {ADMIN}é"), 401, INVALID_HEADER),
        ("", format!("Authorization: Bearer {ADMIN}x"), 401, UNKNOWN_TOKEN),
        ("", format!("Authorization: Bearer {ADMIN},"), 401, UNKNOWN_TOKEN),
        ("", format!("Authorization: Bearer {ADMIN}\r\nAuthorization: Bearer {ADMIN}"), 401, several),
        ("?access_token=ADMIN", String::new(), 200, ON),
        ("?a=1&access_token=ADMIN&access_token=wrong", String::new(), 200, ON),
        ("?access%5Ftoken=ADMIN&unknown", String::new(), 200, ON),
        ("?access_token=wrong&access_token=ADMIN", String::new(), 401, UNKNOWN_TOKEN),
        ("?access_token=", String::new(), 401, UNKNOWN_TOKEN),
        ("?access_token=%ff%00", String::new(), 401, UNKNOWN_TOKEN),
        ("?access_token", String::new(), 401, NO_TOKEN),
        ("?Access_token=ADMIN", String::new(), 401, NO_TOKEN),
        ("?access_token=ADMIN", format!("Authorization: Bearer {ADMIN}"), 401, mixed),
        ("?access_token=", format!("Authorization: Bearer {ADMIN}"), 401, mixed),
        ("?access_token=ADMIN", "Authorization: Basic x".to_owned(), 401, mixed),
    ]
    .map(|(query, header, status, body)| {
        let header = if header.is_empty() { header } else { format!("{header}\r\n") };
        (query.replace("ADMIN", &admin), header.into_bytes(), status, body)
    })
    .into();
    for (query, header, status, body) in cases {
        let answer = get(&api, &format!("{ENABLED}{query}"), &header).await;
        assert_eq!(answer, (status, body.to_owned()), "{query} {}", String::from_utf8_lossy(&header));
    }
    let broken = [b"Authorization: Bearer \xff\r\n".as_slice(), b"Authorization: \xe9\r\n"];
    for header in broken {
        assert_eq!(get(&api, ENABLED, header).await, (401, INVALID_HEADER.to_owned()));
    }
    // The method counts before the token does, and the token before the body.
    let wrong = "{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"Unrecognized request\"}";
    for (method, path) in [("PUT", STATUS), ("get", STATUS), ("FROB", ENABLED), ("HEAD", START_JOB), ("GET", START_JOB)]
    {
        let Raw { status, body, .. } = send(&api, head(method, path, "").as_bytes()).await;
        let expected = if method == "HEAD" { "" } else { wrong };
        assert_eq!((status, body.as_str()), (405, expected), "{method} {path}");
    }
    let request = [head("POST", ENABLED, "Content-Length: 1\r\n").as_bytes(), b"{"].concat();
    assert_eq!(send(&api, &request).await.body, NO_TOKEN);
}

#[tokio::test]
async fn a_body_is_an_object_of_json() {
    let (api, _place) = host().await;
    let off = "{\"enabled\":false}";
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let cases: &[(&[u8], u16, &str)] = &[
        (b"", 400, NOT_JSON),
        (b" ", 400, NOT_JSON),
        (b"{\"enabled\":", 400, NOT_JSON),
        (b"{\"enabled\": true", 400, NOT_JSON),
        (b"{\"a\": \"\xff\"}", 400, NOT_JSON),
        (b"{\"a\": \"\xc3\x28\"}", 400, NOT_JSON),
        (b"\xef\xbb\xbf{}", 400, NOT_JSON),
        (b"{\x00}", 400, NOT_JSON),
        (b"{\"a\": NaN}", 400, NOT_JSON),
        (b"{\"a\": -Infinity}", 400, NOT_JSON),
        (b"{\"enabled\": true,}", 400, NOT_JSON),
        (b"{\"a\": [1,]}", 400, NOT_JSON),
        (b"{'enabled': true}", 400, NOT_JSON),
        (b"{enabled: true}", 400, NOT_JSON),
        (b"{\"enabled\": True}", 400, NOT_JSON),
        (b"{} {}", 400, NOT_JSON),
        (b"{\"a\": 01}", 400, NOT_JSON),
        (b"{\"a\": \"\n\"}", 400, NOT_JSON),
        (b"enabled=true", 400, NOT_JSON),
        (deep.as_bytes(), 400, NOT_JSON),
        (b"null", 400, NOT_OBJECT),
        (b"true", 400, NOT_OBJECT),
        (b"3.5", 400, NOT_OBJECT),
        (b"\"enabled\"", 400, NOT_OBJECT),
        (b"[{\"enabled\": true}]", 400, NOT_OBJECT),
        (b"{\"enabled\": false}", 200, off),
        (b"{}", 200, ON),
        (b"\r\n\t {\"other\": {\"a\": [1e3, \"\\u00e9\", null]}} \n", 200, ON),
        (b"{\"enabled\": true, \"enabled\": false}", 200, off),
        (b"{\"\\u0065nabled\": true}", 200, ON),
    ];
    for (body, status, answer) in cases {
        let case = format!("{:.60}", String::from_utf8_lossy(body));
        assert_eq!(post(&api, ENABLED, "", body).await, (*status, (*answer).to_owned()), "{case}");
    }
    let no_boolean = "{\"errcode\":\"M_UNKNOWN\",\"error\":\"'enabled' parameter must be a boolean\"}";
    for value in ["null", "0", "1", "\"true\"", "[]", "{}"] {
        let body = format!("{{\"enabled\": {value}}}");
        assert_eq!(post(&api, ENABLED, "", body.as_bytes()).await, (400, no_boolean.to_owned()), "{value}");
    }
    // Whatever type it says that it is of, and whatever else the request says.
    for headers in
        ["Content-Type: text/plain\r\n", "Content-Type: application/x-www-form-urlencoded\r\n", "Content-Type: \r\n"]
    {
        assert_eq!(
            post(&api, &format!("{ENABLED}?pretty=1&a"), headers, b"{}").await,
            (200, ON.to_owned()),
            "{headers}"
        );
    }
    let chunked = format!("{}Transfer-Encoding: chunked\r\n", authorization());
    let request =
        format!("{}9\r\n{{\"enabled\r\n8\r\n\": false\r\n1\r\n}}\r\n0\r\n\r\n", head("POST", ENABLED, &chunked));
    assert_eq!(send(&api, request.as_bytes()).await.body, off);
    // No body at all: neither a length nor chunks.
    assert_eq!(send(&api, head("POST", ENABLED, &authorization()).as_bytes()).await.body, NOT_JSON);
}

#[tokio::test]
async fn a_large_body_is_read_up_to_the_limit() {
    let (api, _place) = host().await;
    let of_size = |bytes: usize| [" ".repeat(bytes - 2).as_bytes(), b"{}"].concat();
    assert_eq!(post(&api, ENABLED, "", &of_size(1 << 20)).await, (200, ON.to_owned()));
    assert_eq!(post(&api, ENABLED, "", &of_size(50 << 20)).await, (200, ON.to_owned()));
    let too_large = "{\"errcode\":\"M_TOO_LARGE\",\"error\":\"Request content is too large (>52428800)\"}";
    assert_eq!(post(&api, ENABLED, "", &of_size((50 << 20) + 1)).await, (413, too_large.to_owned()));
    assert_eq!(post(&api, ENABLED, "", &of_size(60 << 20)).await, (413, too_large.to_owned()));
    // Whoever is refused for another reason hears of that.
    let body = of_size(60 << 20);
    let request = head("POST", ENABLED, &format!("Content-Length: {}\r\n", body.len()));
    assert_eq!(send(&api, &[request.as_bytes(), &body].concat()).await.body, NO_TOKEN);
}

#[tokio::test]
async fn head_is_get_without_the_body_and_options_is_for_everybody() {
    let (api, _place) = host().await;
    let answer = send(&api, head("HEAD", ENABLED, &authorization()).as_bytes()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert!(answer.head.contains(&format!("content-length: {}", ON.len())), "{}", answer.head);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert_eq!(send(&api, head("HEAD", STATUS, "").as_bytes()).await.status, 401);

    for path in [STATUS, ENABLED, START_JOB, "/_synapse/admin/v1/unknown"] {
        let Raw { status, head, body } =
            send(&api, head("OPTIONS", path, "Origin: https://a.example\r\n").as_bytes()).await;
        assert_eq!((status, body.as_str()), (204, ""), "{path}");
        for header in [
            "access-control-allow-origin: *",
            "access-control-allow-methods: get, head, post, put, delete, options",
            "access-control-allow-headers: x-requested-with, content-type, authorization, date",
            "access-control-expose-headers: synapse-trace-id, server",
        ] {
            assert!(head.contains(header), "{path}: {head}");
        }
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_a_refusal() {
    let (api, _place) = host().await;
    let mut stream = TcpStream::connect(api.address.trim_start_matches("http://")).await.unwrap();
    let body = " ".repeat(1 << 20);
    let refused = format!("POST {ENABLED} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let last = head("GET", ENABLED, &authorization());
    stream.write_all(format!("{refused}{refused}{last}").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text.matches("HTTP/1.1 401 Unauthorized").count(), 2, "{text}");
    assert!(text.ends_with(ON), "{text}");
}

#[tokio::test]
async fn what_is_nowhere_is_not_found() {
    let (api, _place) = host().await;
    assert_eq!(get(&api, "/nowhere", b"").await, (404, String::new()));
}
