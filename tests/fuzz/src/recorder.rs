//! What a hostile guest of a fuzzer does, recorded for a frontend under Xen. Host.

use guests::tape::{Life, Step};

/// Takes notes once it is told to.
#[derive(Default)]
pub(crate) struct Recorder(Option<Vec<Life>>);

impl Recorder {
    /// Begins a life that connects with these words; without one nothing is noted.
    pub(crate) fn begin(&mut self, words: Vec<String>) {
        self.0.get_or_insert_default().push(Life { words, steps: Vec::new() });
    }

    /// Notes a step.
    pub(crate) fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(life) = self.0.as_mut().and_then(|lives| lives.last_mut()) {
            life.steps.push(step());
        }
    }

    /// What was noted.
    pub(crate) fn finish(&mut self) -> Vec<Life> {
        self.0.take().unwrap_or_default()
    }
}
