//! One background thread that samples host and GPUs at a steady pace and hands out what it finds.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{GpuSampler, HostSampler, Sample};

/// Starts the sampling thread.
pub struct Sampler;

/// The running thread; dropping it ends the thread and waits for it.
pub struct SamplerHandle {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Samples at once and then every `interval`. `publish` runs on the sampling thread, once per host sample and GPU.
    pub fn spawn(interval: Duration, publish: impl FnMut(Sample) + Send + 'static) -> std::io::Result<SamplerHandle> {
        let (stop, stopped) = mpsc::channel();
        let thread = thread::Builder::new().name("sampler".into()).spawn(move || run(interval, publish, &stopped))?;
        Ok(SamplerHandle { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for SamplerHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the sampling thread panicked");
        }
    }
}

fn run(interval: Duration, mut publish: impl FnMut(Sample), stopped: &mpsc::Receiver<()>) {
    let mut host = HostSampler::new();
    // NVML may take seconds to start where no process keeps the driver awake: the thread bears that, not its owner.
    let gpus = GpuSampler::open();
    match &gpus {
        Ok(gpus) => tracing::info!(driver = gpus.driver(), "NVML started"),
        Err(reason) => tracing::info!(%reason, "no GPU samples"),
    }
    let mut due = Instant::now();
    loop {
        if let Some(host) = &mut host {
            publish(Sample::Host(host.sample()));
        }
        for sample in gpus.iter().flat_map(GpuSampler::sample) {
            publish(Sample::Gpu(sample));
        }
        // A late sample is not made up for: charts want a steady pace, not a burst.
        due = (due + interval).max(Instant::now());
        match stopped.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_at_once_and_the_thread_stops_promptly() {
        let (sender, samples) = mpsc::channel();
        let handle = Sampler::spawn(Duration::from_secs(3600), move |sample| {
            let _ = sender.send(sample);
        })
        .unwrap();
        let first = samples.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(matches!(first, Sample::Host(host) if host.process_rss_bytes > Some(0)));
        let begin = Instant::now();
        drop(handle);
        assert!(begin.elapsed() < Duration::from_secs(2));
        // The thread owned the sender: once it is gone, nothing more can come.
        assert!(samples.iter().all(|sample| matches!(sample, Sample::Gpu(_))));
    }

    #[test]
    fn the_interval_is_kept() {
        let (sender, samples) = mpsc::channel();
        let _handle = Sampler::spawn(Duration::from_millis(250), move |sample| {
            let _ = sender.send((Instant::now(), sample));
        })
        .unwrap();
        let mut hosts = samples.iter().filter_map(|(at, sample)| match sample {
            Sample::Host(host) => Some((at, host)),
            _ => None,
        });
        let (begin, _) = hosts.next().unwrap();
        let (end, last) = hosts.nth(1).unwrap();
        assert!(end - begin >= Duration::from_millis(450), "{:?}", end - begin);
        assert!(last.cpu_percent.is_some());
    }
}
