//! The controllers: which are live, and why others are not.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{exact_ms, ms};
use crate::{LoadedController, State};
use tidegate::controller::{Fault, ShadowReport, Usage};
use tidegate::scheduler::board::ControllerBoard;
use tidegate::scheduler::database::unix_ms;

/// The controllers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Controllers {
    /// In the configuration's order.
    pub controllers: Vec<NamedController>,
    /// The databases for which none is configured: the built-in policy sets their pace.
    #[schema(example = json!([]))]
    pub built_in: Vec<String>,
}

/// A controller of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NamedController {
    /// Its name.
    #[schema(example = "steady")]
    pub name: String,
    /// Its file.
    #[schema(example = "/etc/tidegate/steady.wasm")]
    pub path: String,
    /// True where it is a shadow: it is asked what the live controller is asked, and decides nothing.
    pub shadow: bool,
    /// True where it sets the pace of a database at this moment.
    pub live: bool,
    /// Why it does not, where it does not.
    pub not_live_because: Option<String>,
    /// What was loaded; `null` where it could not be.
    pub component: Option<LoadedComponent>,
    /// Why it could not be loaded.
    pub fault: Option<ControllerFault>,
    /// When it was loaded, or that was tried.
    #[schema(example = 1_700_000_000_000_i64)]
    pub loaded_at_ms: i64,
    /// How long ago that is.
    #[schema(example = 86_400_000)]
    pub age_ms: u64,
    /// How it does on each database whose pace it is to set.
    pub databases: Vec<ControllerOn>,
}

/// A component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadedComponent {
    /// The file's SHA-256 digest, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub sha256: String,
    /// The version of the WIT contract that it was built for.
    #[schema(example = "0.1.0")]
    pub wit_version: String,
    /// The file's size.
    #[schema(example = 61_440)]
    pub size_bytes: u64,
}

/// How a controller does on one database, since this host works there with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ControllerOn {
    /// The database.
    #[schema(example = "master")]
    pub database: String,
    /// The lane; `null` for the first.
    pub lane: Option<String>,
    /// Since when; `null` until this host works there.
    pub since_ms: Option<i64>,
    /// "default" or "hold", where the fallback took over.
    pub fallback: Option<String>,
    /// Why it did.
    pub fallback_reason: Option<String>,
    /// For which update the controller is tried again; `null` where there is no fallback, where it takes a reload, or
    /// where no update waits for it.
    pub retry_update: Option<String>,
    /// When it is, in the past while it is.
    pub retry_at_ms: Option<i64>,
    /// The last faults, the newest first; at most 20.
    pub faults: Vec<ControllerFault>,
    /// What its calls used.
    pub used: Used,
    /// What it would have done, where it is a shadow.
    pub as_shadow: Option<Shadow>,
}

/// How a shadow does on one database: what it would have done in the place of the live controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Shadow {
    /// The controller.
    #[schema(example = "tomorrow")]
    pub name: String,
    /// Decisions that it made beside the live controller.
    #[schema(example = 120)]
    pub decisions: u64,
    /// Of these, the ones that were not the live controller's.
    #[schema(example = 7)]
    pub different: u64,
    /// The last of those.
    pub last_difference: Option<ShadowDifference>,
    /// Faults.
    #[schema(example = 0)]
    pub faults: u64,
    /// The last fault, with its hint.
    pub last_fault: Option<String>,
    /// Calls that it was not asked, because it was behind.
    #[schema(example = 0)]
    pub dropped: u64,
    /// Why it is not asked for now, where it is not.
    pub given_up: Option<String>,
}

/// A decision in which a shadow was not of the live controller's opinion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShadowDifference {
    /// The update.
    #[schema(example = "messages_search_body")]
    pub update: String,
    /// What both were asked: the callback.
    #[schema(example = "enter")]
    pub callback: String,
    /// What the live controller answered, in words.
    #[schema(example = "run, 100 ms")]
    pub live: String,
    /// What the shadow answered, in words.
    #[schema(example = "wait 500 ms: replicas are 1200 ms behind")]
    pub shadow: String,
}

impl From<ShadowReport> for Shadow {
    fn from(report: ShadowReport) -> Self {
        let ShadowReport { name, decisions, different, last_difference, faults, last_fault, dropped, given_up } =
            report;
        let last_difference = last_difference.map(|difference| ShadowDifference {
            update: difference.update_name,
            callback: word(&difference.callback),
            live: difference.live,
            shadow: difference.shadow,
        });
        Self { name, decisions, different, last_difference, faults, last_fault, dropped, given_up }
    }
}

/// A fault of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ControllerFault {
    /// When.
    #[schema(example = 1_700_000_000_000_i64)]
    pub at_ms: i64,
    /// What kind of fault, e.g. "out-of-fuel", "deadline", "memory", "trap", "error-returned" or "incompatible".
    #[schema(example = "out-of-fuel")]
    pub kind: String,
    /// Where it happened: the callback, or "load", "start" or "drop".
    #[schema(example = "enter")]
    pub callback: String,
    /// What happened.
    #[schema(example = "all 10000000 used")]
    pub message: String,
    /// What the controller's author can do about it.
    pub hint: String,
}

/// What a controller's calls used; all 0 where nothing is measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Used {
    /// Calls.
    #[schema(example = 412)]
    pub calls: u64,
    /// Fuel of all calls.
    #[schema(example = 430_716)]
    pub fuel: u64,
    /// The most fuel that one of them used.
    #[schema(example = 1_204)]
    pub peak_fuel: u64,
    /// The most linear memory held at any time.
    #[schema(example = 1_114_112)]
    pub peak_memory_bytes: u64,
    /// How long all calls took.
    #[schema(example = 8.4)]
    pub duration_ms: f64,
}

impl Controllers {
    /// The controllers of a host.
    pub fn of(state: &State) -> Self {
        let live = state.live();
        let paced = |name: &String| live.controllers.iter().any(|controller| controller.paces(name));
        let names = state.sites().iter().map(|site| site.name.clone());
        Self {
            controllers: live.controllers.iter().map(|controller| NamedController::of(state, controller)).collect(),
            built_in: names.filter(|name| !paced(name)).collect(),
        }
    }
}

impl NamedController {
    /// A controller of a host.
    pub fn of(state: &State, controller: &LoadedController) -> Self {
        let on = |name: &String| {
            let board = state.board().database(name).unwrap_or_default();
            let lanes = board.all_lanes().map(|(lane, board)| match controller.shadow {
                true => ControllerOn::shadow(name, lane, &controller.name, &board.controller),
                false => ControllerOn::of(name, lane, &board.controller),
            });
            lanes.collect::<Vec<_>>()
        };
        let databases: Vec<ControllerOn> = controller.databases.iter().flat_map(on).collect();
        let (component, fault) = match controller.component.as_ref() {
            Some(loaded) => (loaded.as_ref().ok(), loaded.as_ref().err()),
            None => (None, None),
        };
        let because = match controller.component {
            _ if controller.shadow => Some("it is a shadow, which decides nothing".to_owned()),
            None => Some("it is being compiled".to_owned()),
            Some(_) => not_live_because(fault, &databases),
        };
        let (at, age) = (controller.loaded_at, SystemTime::now().duration_since(controller.loaded_at));
        Self {
            name: controller.name.clone(),
            path: controller.path.clone(),
            shadow: controller.shadow,
            live: because.is_none(),
            not_live_because: because,
            component: component.map(|component| LoadedComponent {
                sha256: component.sha256.clone(),
                wit_version: component.contract_version.clone(),
                size_bytes: component.size,
            }),
            fault: fault.map(|fault| ControllerFault::of(at, fault)),
            loaded_at_ms: unix_ms(at),
            age_ms: age.map_or(0, ms),
            databases,
        }
    }
}

fn not_live_because(fault: Option<&Fault>, databases: &[ControllerOn]) -> Option<String> {
    if let Some(fault) = fault {
        return Some(format!("it could not be loaded: {fault}"));
    }
    if databases.is_empty() {
        return Some("earlier controllers of the configuration come first on all that it names".to_owned());
    }
    if databases.iter().any(|on| on.since_ms.is_some() && on.fallback.is_none()) {
        return None;
    }
    let taken_over = databases.iter().find_map(|on| Some(format!("{}: {}", on.database, on.fallback_reason.as_ref()?)));
    Some(match taken_over {
        Some(reason) => format!("its fallback took over on {reason}"),
        None => "this host does not work on its databases".to_owned(),
    })
}

impl ControllerOn {
    fn of(name: &str, lane: Option<&str>, controller: &ControllerBoard) -> Self {
        let in_force = controller.fallback.as_ref();
        let retry = in_force.and_then(|in_force| in_force.retry.as_ref());
        Self {
            database: name.to_owned(),
            lane: lane.map(str::to_owned),
            since_ms: controller.since.map(unix_ms),
            fallback: in_force.map(|in_force| in_force.fallback.clone()),
            fallback_reason: in_force.map(|in_force| in_force.reason.clone()),
            retry_update: retry.map(|retry| retry.update_name.clone()),
            retry_at_ms: retry.map(|retry| unix_ms(retry.at)),
            faults: controller.faults.iter().rev().map(|(at, fault)| ControllerFault::of(*at, fault)).collect(),
            used: Used::from(controller.usage),
            as_shadow: None,
        }
    }

    fn shadow(name: &str, lane: Option<&str>, controller: &str, board: &ControllerBoard) -> Self {
        let shadow = board.shadows.get(controller).cloned().unwrap_or_default();
        Self {
            database: name.to_owned(),
            lane: lane.map(str::to_owned),
            since_ms: board.since.map(unix_ms),
            fallback: None,
            fallback_reason: None,
            retry_update: None,
            retry_at_ms: None,
            faults: shadow.faults.iter().rev().map(|(at, fault)| ControllerFault::of(*at, fault)).collect(),
            used: Used::from(shadow.usage),
            as_shadow: Some(Shadow { name: controller.to_owned(), ..shadow.report.into() }),
        }
    }
}

impl ControllerFault {
    /// A fault that happened at a time.
    pub(super) fn of(at: SystemTime, fault: &Fault) -> Self {
        Self {
            at_ms: unix_ms(at),
            kind: word(&fault.kind),
            callback: word(&fault.callback),
            message: fault.message.clone(),
            hint: fault.kind.hint().to_owned(),
        }
    }
}

/// The word for a value that is serialized as one.
pub(super) fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

impl From<Usage> for Used {
    fn from(usage: Usage) -> Self {
        let Usage { calls, fuel, peak_fuel, peak_memory, duration } = usage;
        Self { calls, fuel, peak_fuel, peak_memory_bytes: peak_memory, duration_ms: exact_ms(duration) }
    }
}
