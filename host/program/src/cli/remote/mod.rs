//! A host that is asked over its API, in place of the databases.

mod act;
mod look;

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_admin::api::{PROBLEM, Problem, ROOT};

pub(super) use act::{Rows, all_met};

use super::error::CliError;
use super::output;

/// The environment variable that a token is taken from.
const TOKEN: &str = "TIDEGATE_TOKEN";

/// What to do where a token is missing or not known.
const TOKEN_HINT: &str =
    "put the token into the environment variable TIDEGATE_TOKEN, or into a file named with `--token-file`";

/// What to do where the file with the token cannot be read.
const TOKEN_FILE_HINT: &str =
    "name a file with the token that this user can read, or leave `--token-file` out and set TIDEGATE_TOKEN";

/// What to do where no host answers.
const HOST_HINT: &str =
    "a host has an API where [admin] stands in its configuration; `tidegate run` prints where it listens";

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long an answer may take: longer than a host lets one take where nothing is said.
const ANSWER_LIMIT: Duration = Duration::from_secs(70);

/// Which host to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Address {
    /// Ask the host whose API is at this address (http://HOST:PORT or unix:PATH), and no configuration or database
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// A file with the API's token; without, the environment variable TIDEGATE_TOKEN counts
    #[arg(long, value_name = "FILE", requires = "address")]
    token_file: Option<PathBuf>,
}

impl Address {
    /// The host to ask, where one is named.
    pub(super) fn host(&self) -> Result<Option<Remote>, CliError> {
        let Some(address) = &self.address else { return Ok(None) };
        let token = match &self.token_file {
            Some(path) => Some(fs::read_to_string(path).map_err(|error| {
                CliError::usage(format!("cannot read the token from {}", path.display()))
                    .because(error)
                    .hint(TOKEN_FILE_HINT)
            })?),
            None => env::var(TOKEN).ok(),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        Remote::new(address, token).map(Some)
    }
}

/// A host over its API.
pub(super) struct Remote {
    client: Client,
    address: String,
    root: Url,
    token: Option<String>,
}

impl Remote {
    fn new(address: &str, token: Option<String>) -> Result<Self, CliError> {
        let wrong = || {
            CliError::usage(format!("\"{address}\" is not the address of a host"))
                .hint("write it as http://127.0.0.1:9290, https://tide.example or unix:/run/tidegate/api.socket")
        };
        // Somebody has to do the cryptography of https; an error only says that this was settled before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Hosts are near: what a proxy is for is something else.
        let mut client = Client::builder().no_proxy().connect_timeout(CONNECT_LIMIT).timeout(ANSWER_LIMIT);
        let url = match address.strip_prefix("unix:") {
            Some(path) => {
                client = client.unix_socket(PathBuf::from(path));
                "http://localhost"
            }
            None => address,
        };
        let mut root = Url::parse(url).map_err(|error| wrong().because(error))?;
        if !matches!(root.scheme(), "http" | "https") || root.host().is_none() {
            return Err(wrong());
        }
        // A proxy may put the API below a path of its own.
        root.set_path(&format!("{}{ROOT}", root.path().trim_end_matches('/')));
        root.set_query(None);
        let client = client.build().map_err(|error| CliError::failure("cannot ask over HTTP").because(error))?;
        Ok(Self { client, address: address.to_owned(), root, token })
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, CliError> {
        self.ask(Method::GET, path, query, None::<&()>).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &[&str], body: Option<&impl Serialize>) -> Result<T, CliError> {
        self.ask(Method::POST, path, &[], body).await
    }

    /// Asks for something, and reads the answer.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<T, CliError> {
        match self.try_ask(method, path, query, body).await? {
            Ok(answer) => Ok(answer),
            Err(problem) => Err(refusal(problem)),
        }
    }

    /// As [`Remote::ask`]; what the host refused is told apart from what else went wrong.
    async fn try_ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Result<T, Problem>, CliError> {
        let mut url = self.root.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unanswered(error))?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<Result<T, Problem>, CliError> {
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let problem = content_type == Some(PROBLEM);
        let bytes = response.bytes().await.map_err(|error| self.unanswered(error))?;
        let strange = |why: String| {
            CliError::failure(format!("what answers at {} is no tidegate of this version: {why}", self.address))
                .hint(HOST_HINT)
        };
        if status.is_success() {
            let answer = serde_json::from_slice(&bytes);
            return answer.map(Ok).map_err(|error| strange(format!("its answer cannot be read: {error}")));
        }
        match serde_json::from_slice(&bytes) {
            Ok(problem_details) if problem => Ok(Err(problem_details)),
            _ => Err(strange(format!("it says {status}"))),
        }
    }

    fn unanswered(&self, error: reqwest::Error) -> CliError {
        let what = match (error.is_connect(), error.is_timeout()) {
            (true, _) => format!("cannot connect to {}", self.address),
            (false, true) => format!("{} does not answer in time", self.address),
            (false, false) => format!("cannot ask {}", self.address),
        };
        CliError::failure(what).because(error.without_url()).hint(HOST_HINT)
    }
}

/// What a host refused, in the command line's words.
fn refusal(problem: Problem) -> CliError {
    let further = problem.errors.iter().filter(|error| !problem.detail.contains(*error));
    let further: String = further.map(|error| format!("\n  {error}")).collect();
    let error = CliError::failure(format!("{}{further}", problem.detail));
    match (problem.status == StatusCode::UNAUTHORIZED.as_u16(), problem.hint) {
        (true, _) => error.hint(TOKEN_HINT),
        (false, Some(hint)) => error.hint(hint),
        (false, None) => error,
    }
}
