//! The name that each connection gives itself (`application_name`): `tidegate/<host>/<pid>/<role>`, where the role of a
//! connection for batches, and for the lease, ends in the lease's key, so that whoever takes the lease over finds what is
//! left running. Hosts of before had no key in the name of the lease's, and knew nothing of the lease's row.

use super::lease::Key;
use tidegate::scheduler::database::Holder;

/// PostgreSQL cuts longer names.
const LONGEST: usize = 63;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Lease,
    Batch,
    Control,
    /// What is noted and estimated beside the work.
    Aside,
    /// The server's statistics.
    Signals,
    /// A signal of somebody's own.
    Signal,
    /// What the foreground feels.
    Probe,
}

/// The name of a holder's connection. A host's name that is too long loses its end.
pub(super) fn of(holder: &Holder, role: Role, key: Option<&Key>) -> String {
    let role = match (role, key) {
        (Role::Lease, Some(key)) => format!("lease.{}", key.short()),
        (Role::Lease, None) => "lease".to_owned(),
        (Role::Control, _) => "control".to_owned(),
        (Role::Aside, _) => "aside".to_owned(),
        (Role::Signals, _) => "signals".to_owned(),
        (Role::Signal, _) => "signal".to_owned(),
        (Role::Probe, _) => "probe".to_owned(),
        (Role::Batch, Some(key)) => format!("batch.{}", key.short()),
        (Role::Batch, None) => "batch".to_owned(),
    };
    let fixed = format!("tidegate//{}/{role}", holder.pid).len();
    let host: String = plain(&holder.host).take(LONGEST.saturating_sub(fixed)).collect();
    format!("tidegate/{host}/{}/{role}", holder.pid)
}

fn plain(host: &str) -> impl Iterator<Item = char> {
    host.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' })
}

/// True where the session of this name holds the advisory lock for a host that has the row too.
pub(super) fn knows_row(name: &str) -> bool {
    name.starts_with("tidegate/") && name.rsplit('/').next().is_some_and(|role| role.starts_with("lease."))
}

/// True where a connection of this name is this holder's.
pub(super) fn is_of(name: &str, of: &Holder) -> bool {
    let Some(Holder { host, pid }) = holder(name) else { return false };
    // The end may be cut off.
    pid == of.pid && plain(&of.host).collect::<String>().starts_with(&host)
}

/// The holder whose connection has this name; `None` where it is not one of tidegate's.
pub(super) fn holder(name: &str) -> Option<Holder> {
    let mut parts = name.strip_prefix("tidegate/")?.split('/');
    Some(Holder { host: parts.next()?.to_owned(), pid: parts.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::{Role, holder, is_of, knows_row, of};
    use tidegate::scheduler::database::Holder;

    #[test]
    fn a_name_tells_the_holder() {
        let one = Holder { host: "db-1.example".to_owned(), pid: 77 };
        let name = of(&one, Role::Lease, None);
        assert_eq!(name, "tidegate/db-1.example/77/lease");
        assert_eq!(holder(&name), Some(one.clone()));
        assert!(is_of(&name, &one) && !is_of(&name, &Holder { pid: 78, ..one }));
        assert!(!knows_row(&name) && knows_row("tidegate/db-1.example/77/lease.0123abcd"));
        assert_eq!(holder("psql"), None);
    }

    #[test]
    fn a_name_stays_within_what_the_server_keeps() {
        let long = Holder { host: "näme/".repeat(40), pid: u32::MAX };
        let name = of(&long, Role::Control, None);
        assert_eq!(name.len(), 63);
        assert!(name.is_ascii() && name.ends_with("/4294967295/control"), "{name}");
    }
}
