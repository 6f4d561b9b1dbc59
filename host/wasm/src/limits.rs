//! What a controller may use, and the accountant that refuses more.

use std::fmt;
use std::time::Duration;

use wasmtime::{ResourceLimiter, Result};

/// What one instance of a controller may use. Each limit has a fault of its own; none is ever ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Units of fuel for one call, and for starting an instance. A unit is about one WebAssembly instruction: a
    /// controller in Rust uses about 1,000 for an iteration, one in Python about 100,000. Default: 10,000,000.
    pub fuel_per_call: u64,
    /// Wall time for one call, and for starting an instance, time asleep inside the guest included. Default: 5 s.
    pub deadline: Duration,
    /// Bytes of linear memory, summed over all memories of the instance. Default: 64 MiB.
    pub memory_bytes: usize,
    /// Elements of tables, summed over all tables of the instance. Default: 20,000.
    pub table_elements: usize,
    /// Core instances inside the component; it may have as many memories and as many tables. Default: 100.
    pub instances: usize,
    /// Bytes of stack for WebAssembly code. A setting of the compiled artifact: it counts from the next load on.
    /// Default: 512 KiB.
    pub stack_bytes: usize,
    /// Bytes of strings and lists that one call may pass across the boundary, in all. Default: 1 MiB.
    pub data_bytes: usize,
    /// Live handles: iterations that were not dropped, and resources of WASI. Default: 1,000.
    pub handles: usize,
    /// Lines for the log in a second, standard output and standard error included; what is over is counted and
    /// dropped. Default: 100.
    pub log_lines_per_second: u32,
    /// Bytes of one line of the log; the rest is cut off. Default: 4 KiB.
    pub log_line_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel_per_call: 10_000_000,
            deadline: Duration::from_secs(5),
            memory_bytes: 64 << 20,
            table_elements: 20_000,
            instances: 100,
            stack_bytes: 512 << 10,
            data_bytes: 1 << 20,
            handles: 1_000,
            log_lines_per_second: 100,
            log_line_bytes: 4 << 10,
        }
    }
}

/// A limit that was reached, as an error that travels through wasmtime and is recognised by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Exceeded {
    Memory { wanted: usize, limit: usize },
    TableElements { wanted: usize, limit: usize },
    Data { limit: usize },
    Deadline { limit: Duration },
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exceeded::Memory { wanted, limit } => {
                write!(f, "wanted {wanted} bytes of linear memory, the limit is {limit}")
            }
            Exceeded::TableElements { wanted, limit } => {
                write!(f, "wanted {wanted} table elements, the limit is {limit}")
            }
            Exceeded::Data { limit } => write!(f, "passed more than {limit} bytes across the boundary in one call"),
            Exceeded::Deadline { limit } => write!(f, "took longer than {} ms", limit.as_millis()),
        }
    }
}

impl std::error::Error for Exceeded {}

/// Counts what one instance holds. wasmtime asks before each growth, memory by memory; the sum is kept here.
#[derive(Debug)]
pub(super) struct Accountant {
    memory: Account,
    tables: Account,
    instances: usize,
}

/// One countable thing.
#[derive(Debug, Default)]
struct Account {
    held: usize,
    limit: usize,
    /// The growth allowed last, in case wasmtime finds afterwards that it cannot be done.
    last_growth: usize,
}

impl Account {
    fn new(limit: usize) -> Account {
        Account { limit, ..Account::default() }
    }

    /// Books the growth of one member from `current` to `desired`; gives back the sum where that is too much.
    fn grow(&mut self, current: usize, desired: usize) -> Result<(), usize> {
        let growth = desired.saturating_sub(current);
        let wanted = self.held.saturating_add(growth);
        if wanted > self.limit {
            return Err(wanted);
        }
        self.held = wanted;
        self.last_growth = growth;
        Ok(())
    }

    /// Takes back the last growth.
    fn failed(&mut self) {
        self.held = self.held.saturating_sub(std::mem::take(&mut self.last_growth));
    }
}

impl Accountant {
    pub(super) fn new(limits: &Limits) -> Accountant {
        Accountant {
            memory: Account::new(limits.memory_bytes),
            tables: Account::new(limits.table_elements),
            instances: limits.instances,
        }
    }

    /// Linear memory held, in bytes. It is also the peak: memories grow and never shrink.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory.held as u64
    }
}

/// A refusal is an error and not `Ok(false)`: that would only make `memory.grow` answer -1, and the author would see an
/// abort somewhere in an allocator.
impl ResourceLimiter for Accountant {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let limit = self.memory.limit;
        self.memory.grow(current, desired).map_err(|wanted| Exceeded::Memory { wanted, limit })?;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        self.memory.failed();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let limit = self.tables.limit;
        self.tables.grow(current, desired).map_err(|wanted| Exceeded::TableElements { wanted, limit })?;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> Result<()> {
        self.tables.failed();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        self.instances
    }
}
