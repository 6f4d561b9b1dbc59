//! The page as HTML. Everything that comes from a database, a controller or a person is escaped by maud.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::chart;
use super::session::{Notice, Visitor};
use super::view::{ControllerFile, ControllerView, DatabaseView, InHandView, RowView, View, words};
use tidegate::controller::ShadowReport;
use tidegate::scheduler::Lanes;
use tidegate::scheduler::update_state::UpdateState;
use tidegate::signal::{SignalStatus, readable};

/// The whole page.
pub(super) fn page(view: &View, visitor: &Visitor, notice: Option<&Notice>) -> Markup {
    let title = "tidegate";
    let content = html! {
        @if let Some(notice) = notice {
            p.notice.bad[!notice.good] role="status" { (notice.text) }
        }
        main id="content" { (content(view, visitor)) }
        p.live id="live" role="status" {}
    };
    frame(title, Some(visitor), &content)
}

/// What the page shows of the databases: what is replaced while somebody looks.
pub(super) fn content(view: &View, visitor: &Visitor) -> Markup {
    html! {
        @for database in &view.databases { (database_section(database, visitor)) }
        @if !view.controllers.is_empty() { (controllers(&view.controllers, visitor)) }
    }
}

/// Where somebody logs in.
pub(super) fn login(error: Option<&str>) -> Markup {
    let content = html! {
        main {
            form.login method="post" action="/login" {
                h1 { "Log in" }
                @if let Some(error) = error { p.notice.bad role="alert" { (error) } }
                label for="token" { "Token" }
                input id="token" name="token" type="password" autocomplete="current-password" required autofocus;
                button type="submit" { "Log in" }
                p.small { "Made with " code { "tidegate token new" } ", and configured under " code { "[[admin.token]]" } "." }
            }
        }
    };
    frame("tidegate: log in", None, &content)
}

/// Something is wrong with a request.
pub(super) fn refusal(message: &str) -> Markup {
    frame("tidegate", None, &html! { main { p.notice.bad role="alert" { (message) } p { a href="/" { "Back" } } } })
}

fn frame(title: &str, visitor: Option<&Visitor>, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="same-origin";
                @if visitor.is_some() { noscript { meta http-equiv="refresh" content="5"; } }
                title { (title) }
                link rel="stylesheet" href="/assets/page.css";
                link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                @if visitor.is_some() { script src="/assets/page.js" defer {} }
            }
            body {
                header {
                    span.name { "tidegate" }
                    @if let Some(visitor) = visitor { (account(visitor)) }
                }
                (content)
            }
        }
    }
}

fn account(visitor: &Visitor) -> Markup {
    html! {
        span.account {
            @if visitor.seal.is_some() {
                "logged in as " (visitor.role)
                form method="post" action="/logout" { (seal(visitor)) button type="submit" { "Log out" } }
            } @else {
                "reading only: no token is configured"
            }
        }
    }
}

fn seal(visitor: &Visitor) -> Markup {
    html! { @if let Some(seal) = &visitor.seal { input type="hidden" name="seal" value=(seal); } }
}

/// A button that does something to a database, or to one of its updates.
struct Action<'a> {
    /// What is done: the last part of the path.
    what: &'a str,
    label: &'a str,
    database: &'a str,
    update: Option<&'a str>,
}

impl Action<'_> {
    fn button(&self, visitor: &Visitor) -> Markup {
        let id = format!("{}/{}/{}", self.what, self.database, self.update.unwrap_or_default());
        html! {
            form.action method="post" action={ "/do/" (self.what) } {
                (seal(visitor))
                input type="hidden" name="database" value=(self.database);
                @if let Some(update) = self.update { input type="hidden" name="update" value=(update); }
                button type="submit" id=(id) aria-label=[self.update.map(|update| format!("{} {update}", self.label))] {
                    (self.label)
                }
            }
        }
    }
}

fn database_section(database: &DatabaseView, visitor: &Visitor) -> Markup {
    let name = database.name.as_str();
    let action = |what, label| Action { what, label, database: name, update: None }.button(visitor);
    html! {
        section.database id={ "database/" (name) } aria-label={ "Database " (name) } {
            div.head {
                h2 { (name) }
                span.small { (database.system) ", " (database.runner) }
                @if visitor.steers() {
                    div.actions {
                        @if database.paused { (action("resume", "Resume")) } @else { (action("pause", "Pause")) }
                        (action("run-now", "Run now"))
                    }
                }
            }
            @for obstacle in &database.obstacles { p.obstacle { (obstacle) } }
            @for lane in &database.lanes {
                @if database.lanes.len() > 1 {
                    h3.lane { "Lane " (lane.name.as_deref().unwrap_or(Lanes::FIRST)) }
                }
                @match &lane.in_hand {
                    Some(in_hand) => (in_hand_block(in_hand, database)),
                    None => p.idle {
                        @match database.queue.as_deref() {
                            Some([]) => "The queue is empty.",
                            Some(_) => "No update is in hand.",
                            None => "",
                        }
                    }
                }
                (controller(&lane.controller))
            }
            @for (update, rows) in &database.skipped {
                p.small {
                    (update) " has skipped " (number(*rows as f64)) " rows: " code { "tidegate history " (update) " --skipped" } " "
                    @if visitor.steers() {
                        (Action { what: "retry-skipped", label: "Try them again", database: name, update: Some(update) }.button(visitor))
                    }
                }
            }
            @if !database.signals.is_empty() { (signals(&database.signals)) }
            @for kept in &database.kept { p.kept { (kept) } }
            @if let Some(rows) = database.queue.as_deref().filter(|rows| !rows.is_empty()) {
                (queue(rows, name, visitor))
                @if database.more_rows > 0 {
                    p.small { "And " (number(database.more_rows as f64)) " more, which " code { "tidegate status" } " lists." }
                }
            }
        }
    }
}

fn in_hand_block(update: &InHandView, database: &DatabaseView) -> Markup {
    html! {
        div.in-hand {
            h3 { (update.name) @if update.one_shot { span.small { " in one go" } } }
            @match update.done {
                Some(done) => {
                    progress max="1" value={ (format!("{done:.4}")) } aria-label={ "Progress of " (update.name) } {}
                    span.percent { (percent(done)) }
                }
                None => progress aria-label={ "Progress of " (update.name) } {},
            }
            dl {
                dt { "State" }
                dd.state { (update.phase) }
                @if let Some(reason) = &update.reason { dt { "Reason" } dd.reason { (reason) } }
                @if let Some(rate) = update.items_per_s { dt { "Rate" } dd { (number(rate)) " items/s" } }
                @if let Some(eta) = update.eta { dt { "Time left" } dd { "about " (words(eta)) } }
                dt { "Since this host started" }
                dd { (number(update.items as f64)) " items" }
                @if let Some(last) = update.batches.last() {
                    dt { "Last batch" }
                    dd {
                        (number(last.items as f64)) " items in " (format!("{:.0}", last.duration_ms)) " ms"
                        @if let Some(target) = last.target_ms { ", target " (target) " ms" }
                    }
                }
            }
            (chart::durations(&update.batches, &database.name))
        }
    }
}

fn controller(controller: &ControllerView) -> Markup {
    html! {
        div.controller {
            p {
                "Pace set by " strong { (controller.name) }
                @if controller.usage.calls > 0 {
                    span.small {
                        ", " (number(controller.usage.calls as f64)) " calls, at most "
                        (number(controller.usage.peak_fuel as f64)) " fuel a call and "
                        (number(controller.usage.peak_memory as f64 / 1024.0)) " KiB of memory"
                    }
                }
            }
            @if let Some(fallback) = &controller.fallback { p.obstacle { (fallback) } }
            @for report in &controller.shadows { (shadow(report)) }
            @if !controller.faults.is_empty() {
                ul.faults {
                    @for (age, fault, hint) in &controller.faults {
                        li { (fault) span.small { ", " (words(*age)) " ago. " (hint) } }
                    }
                }
            }
        }
    }
}

/// What controllers can read: each with how old it is where that is no longer now, and why there is nothing newer.
fn signals(signals: &[SignalStatus]) -> Markup {
    /// Of a reading that is older than this it is said how old it is.
    const NOW: Duration = Duration::from_secs(5);
    html! {
        h3 { "Signals" }
        dl.signals {
            @for SignalStatus { definition, reading, error, .. } in signals {
                div {
                    dt { (definition.name) }
                    dd {
                        @if let Some(reading) = reading {
                            (readable(reading.value, |size| number(size as f64))) " " (definition.unit)
                            @if reading.age > NOW { span.small { ", " (words(reading.age)) " ago" } }
                        }
                        @match error {
                            Some((error, _)) => span.small { " " (error) },
                            None if reading.is_none() => span.small { "not read yet" },
                            None => {}
                        }
                    }
                }
            }
        }
    }
}

/// A controller that is asked beside the one that sets the pace.
fn shadow(report: &ShadowReport) -> Markup {
    html! {
        p.shadow {
            "Shadow " strong { (report.name) } ": otherwise in " (number(report.different as f64)) " of "
            (number(report.decisions as f64)) " decisions"
            @if report.faults > 0 { ", " (number(report.faults as f64)) " faults" }
            @if report.dropped > 0 { ", not asked " (number(report.dropped as f64)) " times, for it was behind" }
            @if let Some(last) = &report.last_difference {
                span.small { ". Last, " (last.update_name) ", " (last.callback) ": " (last.shadow) " in place of " (last.live) }
            }
        }
        @if let Some(reason) = &report.given_up { p.obstacle { "Shadow " (report.name) " is not asked for now: " (reason) } }
        @if let Some(fault) = &report.last_fault { ul.faults { li { (fault) } } }
    }
}

fn queue(rows: &[RowView], database: &str, visitor: &Visitor) -> Markup {
    html! {
        div.scroll {
            table {
                caption { "Queue" }
                thead {
                    tr {
                        th scope="col" { "Update" }
                        th scope="col" { "State" }
                        th scope="col" { "Why" }
                        @if visitor.steers() { th scope="col" { "Actions" } }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { (row.name) }
                            td { span.badge.(row.state.spelling()) { (row.state.words()) } }
                            td.why {
                                (row.reason.as_deref().unwrap_or_default())
                                @if row.attempts > 0 && !row.quarantined { span.small { " (failures in a row: " (row.attempts) ")" } }
                            }
                            @if visitor.steers() {
                                td.actions {
                                    @if row.state == UpdateState::AwaitsApproval {
                                        (Action { what: "approve", label: "Approve", database, update: Some(&row.name) }.button(visitor))
                                    }
                                    @if row.redefined {
                                        (Action { what: "accept", label: "Accept", database, update: Some(&row.name) }.button(visitor))
                                    }
                                    @if row.attempts > 0 {
                                        (Action { what: "retry", label: "Retry", database, update: Some(&row.name) }.button(visitor))
                                    }
                                    (Action { what: "cancel", label: "Cancel", database, update: Some(&row.name) }.button(visitor))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn controllers(files: &[ControllerFile], visitor: &Visitor) -> Markup {
    html! {
        section.files aria-label="Controllers" {
            div.head {
                h2 { "Controllers" }
                @if visitor.steers() {
                    div.actions {
                        form.action method="post" action="/do/reload" {
                            (seal(visitor))
                            button type="submit" id="reload" { "Reload" }
                        }
                    }
                }
            }
            ul {
                @for file in files {
                    li {
                        strong { (file.name) }
                        " "
                        @if file.databases.is_empty() { span.small { "sets no pace: others come first" } }
                        @else if file.shadow { span.small { "shadow on " (file.databases.join(", ")) } }
                        @else { span.small { "for " (file.databases.join(", ")) } }
                        @match &file.state {
                            None => div.small { (file.path) ", being compiled" },
                            Some(Ok((sha256, contract))) => {
                                div.small { (file.path) ", contract " (contract) ", sha256 " code { (sha256) } }
                            }
                            Some(Err(why)) => p.obstacle { "not loaded: " (why) },
                        }
                    }
                }
            }
        }
    }
}

/// A part of a whole, rounded down: 100 % is said of what is done, and of nothing else.
fn percent(part: f64) -> String {
    format!("{:.1} %", (part.clamp(0.0, 1.0) * 1_000.0).floor() / 10.0)
}

/// A number with its thousands apart.
fn number(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut written = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            written.push('\u{202f}');
        }
        written.push(digit);
    }
    written
}
