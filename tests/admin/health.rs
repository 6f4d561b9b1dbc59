//! Whether the host lives and works, where it listens, and what it reads again at SIGHUP.

use std::time::Duration;

use reqwest::Method;

use crate::support::api::{Answer, Api, WITHOUT_TOKENS};
use crate::support::binary::Folder;
use crate::support::place::Place;
use crate::support::{on_both, until};

const PATIENCE: Duration = Duration::from_secs(30);

on_both! {
    async fn a_host_says_that_it_lives_and_whether_it_works(place: Place) {
        let runner = Api::start(place, "", WITHOUT_TOKENS).await;
        let ask = async |api: &Api, path: &str| {
            let answer = Answer::of(api.request(Method::GET, path).send().await.unwrap()).await;
            (answer.status.as_u16(), answer.text)
        };
        assert_eq!(ask(&runner, "/healthz").await, (200, "ok\n".to_owned()));
        until("the host works", async || ask(&runner, "/readyz").await.0 == 200).await;
        assert_eq!(ask(&runner, "/readyz").await.1, "master: this host works on it\n");

        let standby = Api::start(place, "", WITHOUT_TOKENS).await;
        until("the other stands by", async || ask(&standby, "/readyz").await.1.contains("another host")).await;
        assert_eq!(ask(&standby, "/readyz").await, (503, "master: another host works on it\n".to_owned()));
        assert_eq!(ask(&standby, "/healthz").await.0, 200);

        drop(runner);
        until("the other took over", async || ask(&standby, "/readyz").await.0 == 200).await;
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let place = Place::sqlite();
    let api = Api::start(&place, "", WITHOUT_TOKENS).await;
    let address = api.address.trim_start_matches("http://");
    let folder = Folder::new(&place, "", "", &format!("[admin]\nlisten = [\"{address}\"]"));
    let mut second = folder.start(&["run"]);
    assert_eq!(second.end(PATIENCE).await, 1);
    assert!(second.said().contains(&format!("the API cannot listen on {address}")), "{}", second.said());
}
