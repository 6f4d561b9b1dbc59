//! How many work at once.

use async_trait::async_trait;

use super::{BuiltIn, Definition, Sample, Sampler};

/// `workers`: how many work on a database's updates at once at this moment.
pub struct Workers {
    count: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Workers {
    /// As many as `count` says.
    pub fn new(count: impl Fn() -> usize + Send + Sync + 'static) -> Self {
        Self { count: Box::new(count) }
    }
}

#[async_trait]
impl Sampler for Workers {
    fn definitions(&self) -> Vec<Definition> {
        BuiltIn::definitions(&["workers"])
    }

    async fn sample(&mut self) -> Vec<Sample> {
        vec![Sample::new("workers", Ok::<_, String>((self.count)() as f64))]
    }
}
