//! The machine's load.

use std::num::NonZero;
use std::thread::available_parallelism;

use async_trait::async_trait;

use super::{BuiltIn, Definition, Sample, Sampler};

/// Where Linux tells it: see proc_loadavg(5).
const LOADAVG: &str = "/proc/loadavg";

/// `load`: the average of processes that run or want to, over the last minute, per core that this process may use.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostLoad;

#[async_trait]
impl Sampler for HostLoad {
    fn definitions(&self) -> Vec<Definition> {
        BuiltIn::definitions(&["load"])
    }

    async fn sample(&mut self) -> Vec<Sample> {
        // A file of the kernel's own, read without any disk.
        let text = std::fs::read_to_string(LOADAVG).map_err(|error| format!("{LOADAVG} cannot be read: {error}"));
        vec![Sample::new("load", text.and_then(|text| per_core(&text)))]
    }
}

fn per_core(text: &str) -> Result<f64, String> {
    let average = text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    let average = average.ok_or_else(|| format!("{LOADAVG} begins with no number"))?;
    let cores = available_parallelism().map_or(1, NonZero::get);
    Ok(average / cores as f64)
}
