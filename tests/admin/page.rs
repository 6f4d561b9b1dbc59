//! The page, in a real browser.

use std::time::Duration;

use fantoccini::Locator;
use reqwest::header::{COOKIE, LOCATION, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::json;
use tidegate::scheduler::database::{Failure, NewRow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::api::{ADMIN, Api, VIEWER, WITHOUT_TOKENS, with_tokens};
use crate::support::browser::Browser;
use crate::support::place::{Place, row};
use crate::support::run::{make_items, touched};
use crate::support::{on_both, until};

const TOUCH: &str = "[[update]]\nname = \"touch\"\nkind = \"backfill\"\ntable = \"items\"\nkey = \"id\"\n\
                     set = \"touched = touched + 1\"\n";
const COMPONENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guests/target/components/rust-steady.wasm");
/// Slow enough to be looked at.
const GENTLY: &str = "default_batch_size = 20\nmax_batch_size = 20\nsleep_duration_ms = 20\n";

/// A host at work on `rows` items, which take some seconds.
async fn at_work(place: &Place, rows: u32, rest: &str) -> Api {
    make_items(place, rows).await;
    let database = place.prepared().await;
    database.enqueue(&row("touch")).await.unwrap();
    database.enqueue(&row("unknown <b>update</b>")).await.unwrap();
    Api::start(place, GENTLY, &format!("{TOUCH}{rest}")).await
}

/// Logs in as whoever has a token.
async fn log_in(browser: &Browser, api: &Api, token: &str) {
    browser.client.goto(&api.address).await.unwrap();
    browser.client.find(Locator::Id("token")).await.unwrap().send_keys(token).await.unwrap();
    browser.click("form.login button").await;
    until("the page is there", async || browser.count("section.database").await == 1).await;
}

/// Items committed so far, as the page has it.
async fn committed(browser: &Browser) -> u64 {
    let text = browser.text("dl").await;
    let digits = text.lines().find(|line| line.ends_with(" items")).unwrap_or_default();
    digits.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
}

on_both! {
    async fn an_admin_sees_the_bar_move_and_pauses_and_resumes(place: Place) {
        let api = at_work(place, 60_000, &with_tokens()).await;
        let browser = Browser::start().await;
        log_in(&browser, &api, ADMIN).await;
        browser.run("window.here = true").await;
        until("something is done", async || committed(&browser).await > 0).await;
        let before = committed(&browser).await;
        until("more is done", async || committed(&browser).await > before).await;
        until("the bar has moved", async || {
            browser.run("return Number(document.querySelector('progress')?.getAttribute('value') ?? 0)").await.as_f64() > Some(0.0)
        })
        .await;
        assert_eq!(browser.run("return window.here === true").await, true, "it was loaded anew");
        // What stays as it is stays in the document, with whatever is selected in it.
        browser.run("window.title = document.querySelector('section.database h2')").await;
        let before = committed(&browser).await;
        until("more is done", async || committed(&browser).await > before).await;
        assert_eq!(browser.run("return window.title.isConnected").await, true);
        assert!(browser.text("tbody").await.contains("unknown <b>update</b>"));
        assert_eq!(browser.text(".controller strong").await, "the built-in policy");
        until("signals are read", async || {
            let signals = browser.text(".signals").await;
            let value = signals.lines().skip_while(|line| *line != "probe-latency").nth(1);
            value.is_some_and(|value| value.ends_with(" ms"))
        })
        .await;

        browser.click("form[action='/do/pause'] button").await;
        until("it is paused", async || browser.text(".obstacle").await == "paused: paused on the page").await;
        until("the batch in hand is over", async || browser.text("dd.state").await == "paused").await;
        let rows = place.rows("select count(*) from items where touched > 0").await;
        assert_eq!(browser.count("form[action='/do/resume']").await, 1);
        let status = api.folder.tidegate(&["status"]).await.0;
        assert!(status.contains("paused on the page"), "{status}");
        assert_eq!(place.rows("select count(*) from items where touched > 0").await, rows);

        browser.click("form[action='/do/resume'] button").await;
        until("it goes on", async || browser.count(".obstacle").await == 0).await;
        let before = committed(&browser).await;
        until("more is done", async || committed(&browser).await > before).await;
        browser.close().await;
    }

    async fn an_update_in_one_go_is_cancelled_on_the_page(place: Place) {
        make_items(place, 10).await;
        let statement = place.either(
            "UPDATE items SET touched = (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
             WHERE i < 1000000000000) SELECT count(*) FROM n)",
            "UPDATE items SET touched = touched + 1; SELECT pg_sleep(100000)",
        );
        place.prepared().await.enqueue(&row("long")).await.unwrap();
        let update = format!("[[update]]\nname = \"long\"\nkind = \"sql\"\nsql = {}\n", toml::Value::from(statement));
        let api = Api::start(place, GENTLY, &format!("{update}{}", with_tokens())).await;
        let browser = Browser::start().await;
        log_in(&browser, &api, ADMIN).await;
        until("it runs", async || browser.text("h3").await == "long in one go").await;
        browser.click("form[action='/do/cancel'] button").await;
        until("it is gone", async || browser.text(".notice").await == "long is out of the queue.").await;
        assert_eq!(place.rows("select count(*) from background_updates").await, ["0"]);
        assert_eq!(touched(place).await, ["0|10"]);
        browser.close().await;
    }

    async fn a_held_update_shows_its_reason(place: Place) {
        let controller = format!(
            "[[controller]]\nname = \"steady\"\npath = \"{COMPONENT}\"\n[controller.settings]\nsleep_duration_ms = 600000\n"
        );
        let api = at_work(place, 100, &format!("{controller}{WITHOUT_TOKENS}")).await;
        let browser = Browser::start().await;
        browser.client.goto(&api.address).await.unwrap();
        until("the reason is shown", async || browser.text("dd.reason").await == "sleep between iterations").await;
        assert!(browser.text("dd.state").await.starts_with("held for another "), "{}", browser.text("dd.state").await);
        assert_eq!(browser.text(".controller strong").await, "steady");
        assert_eq!(browser.text("table .badge.held").await, "held");
        assert_eq!(browser.count("main button").await, 0, "without a token nobody steers");
        assert_eq!(touched(place).await, ["0|100"]);
        browser.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_all_and_no_button() {
    let place = Place::sqlite();
    let api = at_work(&place, 20_000, &with_tokens()).await;
    let browser = Browser::start().await;
    browser.client.goto(&api.address).await.unwrap();
    browser.client.find(Locator::Id("token")).await.unwrap().send_keys("a guess").await.unwrap();
    browser.click("form.login button").await;
    until("it is refused", async || browser.text(".notice.bad").await == "That token is not known.").await;
    log_in(&browser, &api, VIEWER).await;
    until("something is done", async || committed(&browser).await > 0).await;
    assert_eq!((browser.count("main button").await, browser.count("main form").await), (0, 0));
    let cookie = browser.run("return document.cookie").await;
    assert_eq!(cookie, "", "a script must not see the session");
    browser.click("header form button").await;
    until("the session is over", async || browser.count("form.login").await == 1).await;
    browser.close().await;
}

/// The page's headers let nothing in from elsewhere, and what is on it needs nothing more.
#[tokio::test(flavor = "multi_thread")]
async fn the_policy_allows_what_the_page_needs_and_nothing_else() {
    let place = Place::sqlite();
    let api = at_work(&place, 20_000, WITHOUT_TOKENS).await;
    let answer = api.request(reqwest::Method::GET, "/").send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = answer.text().await.unwrap();
    assert!(html.contains("<noscript>") && html.contains("unknown &lt;b&gt;update&lt;/b&gt;"), "{html}");
    let browser = Browser::start().await;
    browser.client.goto(&api.address).await.unwrap();
    until("the script and the stream are allowed", async || committed(&browser).await > 0).await;
    let elsewhere =
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin))";
    assert_eq!(browser.run(elsewhere).await, json!([]));
    let inline = "const s = document.createElement('script'); s.textContent = 'window.injected = 1'; \
                  document.body.append(s); return window.injected ?? null";
    assert_eq!(browser.run(inline).await, json!(null));
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_long_queue_the_beginning_is_shown_and_what_is_in_trouble() {
    let place = Place::sqlite();
    let database = place.prepared().await;
    database.enqueue(&row("blocker")).await.unwrap();
    let names: Vec<String> = (0..250).map(|number| format!("update {number:03}")).collect();
    for name in &names {
        database.enqueue(&NewRow { depends_on: Some("blocker".to_owned()), ..row(name) }).await.unwrap();
    }
    let failure = Failure { attempts: 5, error: "no such table".to_owned(), code: None, at_ms: 0, quarantined: true };
    database.record_failure("update 230", "{}", &failure).await.unwrap();
    let definitions = names.iter().map(|name| format!("[[update]]\nname = \"{name}\"\nkind = \"noop\"\n"));
    let api = Api::start(&place, "", &format!("{}{WITHOUT_TOKENS}", definitions.collect::<String>())).await;
    let html = api.request(reqwest::Method::GET, "/").send().await.unwrap().text().await.unwrap();
    assert_eq!(html.matches("<th scope=\"row\">").count(), 201);
    assert!(html.contains("update 198") && !html.contains("update 199") && html.contains("And 50 more"), "{html}");
    assert!(html.contains("update 230") && html.contains("no such table"), "{html}");
}

/// Serves a page, once for each connection, that sends a form to somewhere else at once.
async fn forger(target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let body = format!(
            "<form method=post action='{target}/do/pause'><input name=database value=master></form>\
             <script>document.forms[0].submit()</script>"
        );
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4_096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_of_another_origin_steers_nothing() {
    let place = Place::sqlite();
    let api = at_work(&place, 20_000, &with_tokens()).await;
    let browser = Browser::start().await;
    log_in(&browser, &api, ADMIN).await;
    // Another port of this machine is another origin of the same site: the cookie is sent along.
    browser.client.goto(&forger(api.address.clone()).await).await.unwrap();
    let refused = "This was not sent by a page of your session; reload the page and try again.";
    until("it is refused", async || browser.text(".notice.bad").await == refused).await;
    browser.close().await;

    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let post = |path: &str, body: &str| {
        let request = client.post(format!("{}{path}", api.address)).body(body.to_owned());
        request.header("content-type", "application/x-www-form-urlencoded")
    };
    let login = post("/login", &format!("token={ADMIN}")).send().await.unwrap();
    let cookie = login.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly; SameSite=Strict; Path=/"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let page =
        client.get(format!("{}/", api.address)).header(COOKIE, &cookie).send().await.unwrap().text().await.unwrap();
    let seal = page.split("name=\"seal\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let sealed = format!("database=master&seal={seal}");
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(post("/do/pause", "database=master").header(COOKIE, &cookie)).await, 403);
    assert_eq!(status(post("/do/pause", "database=master&seal=guess").header(COOKIE, &cookie)).await, 403);
    assert_eq!(
        status(post("/do/pause", &sealed).header(COOKIE, &cookie).header(ORIGIN, "http://evil.example")).await,
        403
    );
    assert_eq!(
        status(post("/do/pause", &sealed).header(COOKIE, &cookie).header("sec-fetch-site", "cross-site")).await,
        403
    );
    let without = post("/do/pause", &sealed).send().await.unwrap();
    assert_eq!((without.status().as_u16(), without.headers()[LOCATION].to_str().unwrap()), (303, "/login"));
    assert_eq!(api.folder.tidegate(&["status"]).await.0.matches("paused").count(), 0);
    let own = post("/do/pause", &sealed).header(COOKIE, &cookie).header(ORIGIN, &api.address);
    assert_eq!(status(own).await, 303);
    assert!(api.folder.tidegate(&["status"]).await.0.contains("paused on the page"));
    // Nobody has to be anybody to send a form, and so it is a small one.
    assert_eq!(status(post("/login", &format!("token={}", "x".repeat(15_000)))).await, 403);
    assert_eq!(status(post("/login", &format!("token={}", "x".repeat(20_000)))).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_kept_as_pictures_light_dark_and_narrow() {
    let place = Place::sqlite();
    let api = at_work(&place, 60_000, &with_tokens()).await;
    let browser = Browser::start().await;
    log_in(&browser, &api, ADMIN).await;
    until("there is a chart", async || browser.count("svg polyline.took").await == 1).await;
    let scheme = |name: &str| json!({"features": [{"name": "prefers-color-scheme", "value": name}]});
    browser.devtools("Emulation.setEmulatedMedia", scheme("light")).await;
    let light = browser.screenshot("light").await;
    browser.devtools("Emulation.setEmulatedMedia", scheme("dark")).await;
    let dark = browser.screenshot("dark").await;
    let narrow = json!({"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true});
    browser.devtools("Emulation.setDeviceMetricsOverride", narrow).await;
    let phone = browser.screenshot("phone").await;
    let sideways =
        browser.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth").await;
    assert_eq!(sideways, false, "on a phone the page must not be wider than the window");
    for picture in [&light, &dark, &phone] {
        assert!(std::fs::metadata(picture).unwrap().len() > 10_000, "{}", picture.display());
    }
    assert_ne!(std::fs::read(light).unwrap(), std::fs::read(dark).unwrap());
    // By keyboard alone: the first button is reached, and stays under the finger while the page is renewed.
    browser.run("document.querySelector('form[action=\"/do/pause\"] button').focus()").await;
    let before = committed(&browser).await;
    until("the page was renewed", async || committed(&browser).await > before).await;
    assert_eq!(browser.run("return document.activeElement.textContent").await, "Pause");
    tokio::time::timeout(Duration::from_secs(30), browser.close()).await.unwrap();
}
