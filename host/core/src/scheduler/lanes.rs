//! Lanes: which updates of a database go on beside each other.

use std::collections::HashMap;
use std::sync::Arc;

use crate::update::FIRST_LANE;

/// In which lane each update of a database is worked on. Each lane has one update in hand at a time, with a controller
/// instance and a connection of its own; what no lane is named for is in the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lanes {
    /// In order, the first one among them.
    names: Vec<Arc<str>>,
    /// By update name; those of the first lane are not in it.
    of: HashMap<String, usize>,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { names: vec![Self::FIRST.into()], of: HashMap::new() }
    }
}

impl Lanes {
    /// The lane of all updates that are put in no other: all of them, as in Synapse, where no lane is configured.
    pub const FIRST: &str = FIRST_LANE;

    /// Puts an update in a lane, which is made where there is none of that name.
    pub fn put(&mut self, update_name: impl Into<String>, lane: &str) {
        let update_name = update_name.into();
        let number = match self.number(lane) {
            Some(number) => number,
            None => {
                self.names.push(lane.into());
                self.names.len() - 1
            }
        };
        match number {
            0 => drop(self.of.remove(&update_name)),
            _ => drop(self.of.insert(update_name, number)),
        }
    }

    /// All lanes, the first one first.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// The lane of an update.
    pub fn of(&self, update_name: &str) -> &Arc<str> {
        &self.names[self.number_of(update_name)]
    }

    /// The number of an update's lane.
    pub(super) fn number_of(&self, update_name: &str) -> usize {
        self.of.get(update_name).copied().unwrap_or(0)
    }

    /// The number of a lane; `None` where there is none of that name.
    pub(super) fn number(&self, lane: &str) -> Option<usize> {
        self.names.iter().position(|name| **name == *lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_nowhere_is_in_the_first_lane() {
        let mut lanes = Lanes::default();
        assert_eq!(&**lanes.of("a"), "main");
        for (update_name, lane) in [("a", "indexes"), ("b", "indexes"), ("c", "slow"), ("c", "main")] {
            lanes.put(update_name, lane);
        }
        let names: Vec<&str> = lanes.names().iter().map(|name| &**name).collect();
        assert_eq!(names, ["main", "indexes", "slow"]);
        let of: Vec<&str> = ["a", "b", "c", "d"].iter().map(|name| &**lanes.of(name)).collect();
        assert_eq!(of, ["indexes", "indexes", "main", "main"]);
    }
}
