//! A signal that a server tells over HTTP.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Url};
use serde_json::Value;

use super::file::number;
use super::{Definition, Sample, Sampler};

/// The most bytes of an answer.
const MOST: usize = 1 << 20;

/// What of an answer is the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it: a number.
    Whole,
    /// What a JSON pointer (RFC 6901) points at in a JSON document: a number, or a string that is one.
    Pointer(String),
    /// The value of the one series that a Prometheus query gives (`/api/v1/query`).
    Prometheus,
}

/// Where a server is asked. It may hold a password, so that `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// The address of a number, or of a document with one in it.
    ///
    /// # Errors
    /// What is wrong with it, in words that do not repeat it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        match url.scheme() {
            "http" | "https" => Ok(Self(url)),
            _ => Err("it begins with neither \"http://\" nor \"https://\"".to_owned()),
        }
    }

    /// That of a query's answer, on the Prometheus server at `url`.
    ///
    /// # Errors
    /// As [`Address::parse`].
    pub fn prometheus(url: &str, query: &str) -> Result<Self, String> {
        let Self(mut url) = Self::parse(url)?;
        // A proxy may put it below a path of its own.
        url.set_path(&format!("{}/api/v1/query", url.path().trim_end_matches('/')));
        url.query_pairs_mut().append_pair("query", query);
        Ok(Self(url))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

/// A number that a server answers to a GET.
pub struct Http {
    definition: Definition,
    client: Client,
    address: Address,
    token: Option<String>,
    part: Part,
    limit: Duration,
}

impl Http {
    /// What is at `address`, had within `limit`, with a bearer token where one is given.
    pub fn new(
        definition: Definition,
        client: Client,
        (address, token): (Address, Option<String>),
        part: Part,
        limit: Duration,
    ) -> Self {
        Self { definition, client, address, token, part, limit }
    }

    async fn ask(&self) -> Result<f64, String> {
        let mut request = self.client.get(self.address.0.clone()).timeout(self.limit);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        // The URL may hold a password.
        let words = |error: reqwest::Error| chain(&error.without_url());
        let mut response = request.send().await.map_err(words)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(words)? {
            body.extend_from_slice(&chunk);
            if body.len() > MOST {
                return Err(format!("the answer is longer than {MOST} bytes"));
            }
        }
        if !status.is_success() {
            return Err(format!("the server answered {status}"));
        }
        value(&String::from_utf8_lossy(&body), &self.part)
    }
}

#[async_trait]
impl Sampler for Http {
    fn definitions(&self) -> Vec<Definition> {
        vec![self.definition.clone()]
    }

    async fn sample(&mut self) -> Vec<Sample> {
        vec![Sample::new(&self.definition.name, self.ask().await)]
    }
}

/// The value in an answer.
fn value(body: &str, part: &Part) -> Result<f64, String> {
    if *part == Part::Whole {
        return number(body);
    }
    let json: Value = serde_json::from_str(body).map_err(|error| format!("the answer is not JSON: {error}"))?;
    match part {
        Part::Pointer(pointer) => {
            numeric(json.pointer(pointer).ok_or_else(|| format!("the answer has nothing at \"{pointer}\""))?)
        }
        _ => prometheus(&json),
    }
}

/// What a query gives: <https://prometheus.io/docs/prometheus/latest/querying/api/#expression-query-result-formats>.
fn prometheus(json: &Value) -> Result<f64, String> {
    let result = json.pointer("/data/result").ok_or("the answer is not that of a Prometheus query")?;
    let sample = match json.pointer("/data/resultType").and_then(Value::as_str) {
        Some("scalar") => result,
        Some("vector") => match result.as_array().map(Vec::as_slice) {
            Some([series]) => series.get("value").unwrap_or(&Value::Null),
            Some([]) => return Err("the query gives no series".to_owned()),
            series => {
                let count = series.map_or(0, <[_]>::len);
                return Err(format!("the query gives {count} series: have it give one, with max() or sum(), say"));
            }
        },
        kind => return Err(format!("the query gives a {}, not a number", kind.unwrap_or("nothing"))),
    };
    // The time, then the value as a string.
    numeric(sample.get(1).unwrap_or(&Value::Null))
}

fn numeric(value: &Value) -> Result<f64, String> {
    match value {
        Value::Number(number) => number.as_f64().ok_or_else(|| format!("{number} is not a number")),
        Value::String(text) => number(text),
        Value::Null => Err("null is not a number".to_owned()),
        Value::Bool(_) => Err("true or false is not a number".to_owned()),
        Value::Array(_) => Err("a list is not a number".to_owned()),
        Value::Object(_) => Err("an object is not a number".to_owned()),
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words += &format!(": {cause}");
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{Part, value};

    #[test]
    fn an_answer_has_a_number_in_it_or_says_what_is_wrong() {
        let (whole, pointer) = (Part::Whole, Part::Pointer("/queue/0/depth".to_owned()));
        let vector =
            |result: &str| format!(r#"{{"status":"success","data":{{"resultType":"vector","result":{result}}}}}"#);
        for (body, part, expected) in [
            ("42\n", &whole, Ok(42.0)),
            ("soon", &whole, Err("a text of 4 characters is not a number")),
            (" ", &whole, Err("there is no number, and nothing else")),
            (r#"{"queue": [{"depth": 3}]}"#, &pointer, Ok(3.0)),
            (r#"{"queue": [{"depth": "3.5"}]}"#, &pointer, Ok(3.5)),
            (r#"{"queue": [{"depth": null}]}"#, &pointer, Err("null is not a number")),
            (r#"{"queue": []}"#, &pointer, Err("the answer has nothing at \"/queue/0/depth\"")),
            ("<html>", &pointer, Err("the answer is not JSON: expected value at line 1 column 1")),
            (&vector(r#"[{"metric":{},"value":[1.5,"0.25"]}]"#), &Part::Prometheus, Ok(0.25)),
            (&vector("[]"), &Part::Prometheus, Err("the query gives no series")),
            (
                &vector(r#"[{"value":[1,"1"]},{"value":[1,"2"]}]"#),
                &Part::Prometheus,
                Err("the query gives 2 series: have it give one, with max() or sum(), say"),
            ),
            (r#"{"data":{"resultType":"scalar","result":[1.5,"7"]}}"#, &Part::Prometheus, Ok(7.0)),
            (
                r#"{"data":{"resultType":"matrix","result":[]}}"#,
                &Part::Prometheus,
                Err("the query gives a matrix, not a number"),
            ),
            ("{}", &Part::Prometheus, Err("the answer is not that of a Prometheus query")),
        ] {
            assert_eq!(value(body, part), expected.map_err(str::to_owned), "{body}");
        }
    }
}
