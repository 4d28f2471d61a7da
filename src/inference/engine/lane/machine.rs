//! What the lanes share: the model, the device that computes, and the buffers of a step.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    engine::Lane,
    model::{Device, LanguageModel, StepSize},
};

/// Sequences that decode in the same step, for which the buffers of an idle lane are made. For more of them the buffers
/// grow by as many.
pub(crate) const DECODE_ROWS: usize = 16;

pub(crate) struct Machine {
    pub model: Arc<LanguageModel>,
    pub device: Box<dyn Device>,
    /// Prompt tokens computed in one step.
    pub chunk: usize,
    /// The size of step that each lane has reserved the buffers for.
    reserved: BTreeMap<Lane, StepSize>,
    /// The size of step that the buffers were made for.
    made: Option<StepSize>,
}

impl Machine {
    pub fn new(model: Arc<LanguageModel>, device: Box<dyn Device>, chunk: usize) -> Self {
        Self { model, device, chunk, reserved: BTreeMap::new(), made: None }
    }

    /// Reserves the buffers of a step for a lane. False where it has reserved the same before.
    ///
    /// Lanes use the same buffers one after the other. They are made for the lane that needs the most, and each lane
    /// reserves what it would need alone.
    pub fn reserve(&mut self, lane: Lane, size: StepSize) -> bool {
        if self.reserved.insert(lane, size) == Some(size) {
            return false;
        }
        let reserved = self.reserved.values();
        let most = StepSize {
            decode_rows: reserved.clone().map(|size| size.decode_rows).max().unwrap_or(0),
            longest: reserved.map(|size| size.longest).max().unwrap_or(0),
            ..size
        };
        if self.made != Some(most) {
            self.made = Some(most);
            self.device.reserve(most);
        }
        true
    }

    /// What is wrong where the buffers take more than was reserved for them.
    pub fn check(&self) -> Result<(), String> {
        let used = self.device.buffer_bytes();
        let reserved = self.made.map_or(0, |size| self.device.step_bytes(size));
        if used > reserved {
            let device = self.device.name();
            return Err(format!("the step's buffers on {device} take {used} bytes, {reserved} were reserved for them"));
        }
        Ok(())
    }
}

/// Bytes of the step's buffers that a lane without probes reserves when so many sequences run in it, unless its budget is
/// too small for a whole context.
pub fn workspace_bytes(model: &LanguageModel, threads: usize, prefill_chunk: usize, sequences: usize) -> u64 {
    let decode_rows = sequences.max(1).next_multiple_of(DECODE_ROWS);
    StepSize { prompt_rows: prefill_chunk, decode_rows, longest: model.context(), threads }.bytes(model)
}
