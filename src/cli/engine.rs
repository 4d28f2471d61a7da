//! An engine as the configuration describes it: what the dashboard, the JSON lines and `chat` have in common.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;

use super::{Failure, fetch};
use crate::{
    bench::WorkloadSpec,
    config::{Config, EngineConfig},
    demo,
    engine::{Engine, EngineError, EngineOptions, EventKind, Events, Lane, LaneOptions},
    model::LanguageModel,
    telemetry::{Sample, Sampler, SamplerHandle, default_threads},
};

/// How often host and GPUs are sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// A running engine with its samplers. Dropping it stops both.
pub struct Running {
    /// Where requests go.
    pub engine: Engine,
    /// Where events come from.
    pub events: Events,
    _sampler: SamplerHandle,
}

impl Running {
    /// Ends it, and the wait for it after `limit`: whatever the engine is busy with, the program is to end.
    pub fn end(self, limit: Duration) {
        if !self.engine.stop_within(limit) {
            tracing::warn!("the engine is still busy; the program ends without waiting for it");
        }
    }
}

/// Opens the configured model; the default one is fetched where it is missing.
pub fn open_model(config: &Config) -> Result<Arc<LanguageModel>, Failure> {
    let path = fetch::model_file(config)?;
    open(&path, config)
}

fn open(path: &Path, config: &Config) -> Result<Arc<LanguageModel>, Failure> {
    let model = LanguageModel::open(path, config.engine.context).map_err(Failure::misuse)?;
    tracing::info!(path = %path.display(), name = model.shape.name, "model open");
    Ok(Arc::new(model))
}

/// The threads that compute.
pub fn threads(config: &Config) -> usize {
    config.engine.threads.unwrap_or_else(default_threads)
}

/// The configured options of both lanes.
pub fn lanes(config: &Config) -> Vec<LaneOptions> {
    let lane = |lane| {
        let configured = config.lanes.get(lane);
        LaneOptions {
            lane,
            policy: configured.policy,
            device_budget: configured.budget.0,
            host_budget: configured.host_budget.0,
        }
    };
    Lane::ALL.into_iter().map(lane).collect()
}

/// The configured options of an engine with these lanes.
pub fn options(config: &Config, lanes: Vec<LaneOptions>) -> EngineOptions {
    let EngineConfig { prefill_chunk, queue, share_prefixes, .. } = config.engine;
    let guard = config.guard.options();
    EngineOptions { threads: threads(config), prefill_chunk, lanes, queue, share_prefixes, guard }
}

/// The tokens of a text to make the prompts of a load of: the demo's documents. Says where the model's context is too
/// short for `load`.
pub fn load_text(model: &LanguageModel, load: Option<&WorkloadSpec>) -> Result<Arc<[u32]>, Failure> {
    load.map_or(Ok(()), |load| load.check(model.context())).map_err(Failure::misuse)?;
    Ok(model.tokenizer.encode(&demo::text()).into())
}

/// Starts an engine on `model` and the samplers that write to its stream of events.
pub fn start(model: Arc<LanguageModel>, config: &Config, lanes: Vec<LaneOptions>) -> Result<Running, Failure> {
    let (engine, events) = Engine::start(model, options(config, lanes)).map_err(|error| match error {
        EngineError::Profile(_) => Failure::misuse(error),
        _ => Failure::failed(error),
    })?;
    let publisher = engine.publisher();
    let sampler = Sampler::spawn(SAMPLE_EVERY, move |sample| {
        publisher.publish(match sample {
            Sample::Host(host) => EventKind::Host(host),
            Sample::Gpu(gpu) => EventKind::Gpu(gpu),
        });
    });
    let sampler = sampler.context("the sampling thread could not be started")?;
    Ok(Running { engine, events, _sampler: sampler })
}
