//! A real browser, headless, driven over WebDriver.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// A browser with one window. Dropped, it ends.
pub struct Browser {
    pub client: Client,
    driver: Driver,
    /// Where its profile is.
    _profile: tempfile::TempDir,
}

/// chromedriver, and the address that it listens on.
struct Driver {
    child: Child,
    address: String,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // With the browser that it started: a test that panics closes nothing.
        let group = format!("kill -s KILL -- -{}", self.child.id());
        let _ = Command::new("/bin/sh").args(["-c", &group]).status();
        let _ = self.child.wait();
    }
}

impl Driver {
    fn start() -> Self {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver: `make setup` installs it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ready = lines
            .find(|line| line.contains("started successfully on port"))
            .expect("chromedriver does not say where it listens");
        let port = ready.trim_end_matches('.').rsplit(' ').next().unwrap().to_owned();
        // What else it says is of no interest, but has to be taken.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address: format!("http://127.0.0.1:{port}") }
    }
}

impl Browser {
    pub async fn start() -> Self {
        let driver = Driver::start();
        let profile = tempfile::tempdir().unwrap();
        let options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,900",
            format!("--user-data-dir={}", profile.path().display()),
        ]});
        let Value::Object(capabilities) = json!({"goog:chromeOptions": options}) else { panic!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(&driver.address).await.unwrap();
        Self { client, driver, _profile: profile }
    }

    /// The text of what a selector finds first; nothing where it finds nothing.
    pub async fn text(&self, selector: &str) -> String {
        match self.client.find(Locator::Css(selector)).await {
            // It may be replaced between one and the other.
            Ok(element) => element.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// How many elements a selector finds.
    pub async fn count(&self, selector: &str) -> usize {
        self.client.find_all(Locator::Css(selector)).await.unwrap().len()
    }

    /// What a script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Clicks what a selector finds; once more where it was replaced between the two.
    pub async fn click(&self, selector: &str) {
        super::until(&format!("{selector} is clicked"), async || {
            match self.client.find(Locator::Css(selector)).await {
                Ok(element) => element.click().await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    /// A command of Chromium's own protocol.
    pub async fn devtools(&self, command: &str, parameters: Value) {
        let session = self.client.session_id().await.unwrap().unwrap();
        let url = format!("{}/session/{session}/goog/cdp/execute", self.driver.address);
        let body = json!({"cmd": command, "params": parameters});
        let answer = super::api::client().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{command}: {}", answer.text().await.unwrap());
    }

    /// Keeps what the window shows under `target/page/`.
    pub async fn screenshot(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("page");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(name).with_extension("png");
        std::fs::write(&file, self.client.screenshot().await.unwrap()).unwrap();
        file
    }

    pub async fn close(self) {
        self.client.close().await.unwrap();
    }
}
