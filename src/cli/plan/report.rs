//! A plan as a table and as JSON.

use serde_json::{Value, json};

use crate::{
    cache::Policy,
    cli::{escape, measuring::table},
    plan::{Comparison, Planner, Prediction, WinsByCtx},
};

/// A plan to be shown.
pub struct Plan {
    pub planner: Planner,
    pub policies: Vec<(String, Policy)>,
    pub ctx: Vec<usize>,
    /// The longest step in milliseconds, if any is too long.
    pub itl_ms: Option<f64>,
    pub compared: Option<Vec<Comparison>>,
}

impl Plan {
    /// Every policy at every context, with the ratio of its speed to the first policy's and from how many sessions on it
    /// is faster.
    fn runs(&self, ctx: usize) -> Vec<(&str, Prediction, Option<f64>, Option<usize>)> {
        let Some((_, first)) = self.policies.first() else { return Vec::new() };
        let base = self.planner.predict(first, ctx).tok_s;
        self.policies
            .iter()
            .map(|(spelling, policy)| {
                let prediction = self.planner.predict(policy, ctx);
                let ratio = prediction.tok_s.zip(base).map(|(rate, base)| rate / base);
                let from = self.planner.wins_from_sessions(policy, first, ctx);
                (spelling.as_str(), prediction, ratio, from)
            })
            .collect()
    }

    /// At which contexts a full lane is faster than one under the first policy: up to the model's, and to the longest that
    /// was asked for, so that no row says another thing.
    fn wins_by_ctx(&self) -> Vec<(&str, WinsByCtx)> {
        let Some(((_, first), others)) = self.policies.split_first() else { return Vec::new() };
        let last = self.ctx.iter().copied().max().unwrap_or(0).max(self.planner.longest_ctx());
        let wins = |policy| self.planner.wins_by_ctx(policy, first, last);
        others.iter().map(|(spelling, policy)| (spelling.as_str(), wins(policy))).collect()
    }

    pub fn as_json(&self) -> Value {
        let run = |(policy, prediction, ratio, from): (&str, Prediction, Option<f64>, Option<usize>)| {
            let mut run = json!({ "policy": policy });
            if let (Value::Object(run), Ok(Value::Object(figures))) = (&mut run, serde_json::to_value(prediction)) {
                run.extend(figures);
                run.insert("ratio".into(), json!(ratio));
                run.insert("wins_from_sessions".into(), json!(from));
            }
            run
        };
        let runs: Vec<Value> = self.ctx.iter().flat_map(|&ctx| self.runs(ctx).into_iter().map(run)).collect();
        let from = self.wins_by_ctx().into_iter().map(|(policy, wins)| {
            json!({ "policy": policy, "ctx": wins.from, "up_to": wins.up_to, "longest": wins.longest })
        });
        json!({
            "model": self.planner.model(), "device": self.planner.device(), "budget_bytes": self.planner.budget(),
            "itl_ms": self.itl_ms, "simulated": self.planner.device().one_memory, "runs": runs, "wins_from_ctx": from.collect::<Vec<_>>(),
            "compared": self.compared,
        })
    }

    pub fn as_text(&self) -> String {
        let (model, device) = (self.planner.model(), self.planner.device());
        let tera = |rate: Option<f64>| rate.map_or("n/a".to_owned(), |rate| format!("{:.3}", rate / 1e12));
        let mut text = format!(
            "{}: weights {}, {} of them read in a step\n{}: {} of memory at {:.1} GB/s, link {:.1} GB/s, {} TFLOP/s\n\
             {} for sessions; {}: see `kcache plan --help`\n",
            escape::line(&model.name),
            size(model.weight_bytes),
            size(model.step_bytes),
            device.name,
            size(device.memory_bytes),
            device.bandwidth / 1e9,
            device.link / 1e9,
            tera(device.linear_flops),
            size(self.planner.budget()),
            if device.attention.is_some() { "from the times of its kernels" } else { "bounds, not measurements" },
        );
        if device.one_memory {
            text += "device and host are one memory here: the split between them is simulated\n";
        }
        text += &match self.itl_ms {
            Some(ms) => format!(
                "as many sessions as keep a step, the time between two tokens of each, within {ms} ms: --itl TIME, --itl none\n"
            ),
            None => "as many sessions as memory holds, however long their step: --itl bounds it\n".to_owned(),
        };
        for &ctx in &self.ctx {
            text += &format!("\n{}{}", table(&self.rows(ctx)), self.too_long(ctx));
        }
        let base = self.policies.first().map_or("", |(spelling, _)| spelling);
        for (policy, wins) in self.wins_by_ctx() {
            text += &format!("\na full lane under {policy} {}", compared_by_ctx(wins, base));
        }
        text += "\n";
        if let Some(compared) = &self.compared {
            text += &format!("\n{}", table(&compared_rows(compared)));
        }
        text
    }

    /// A line for each policy under which one session alone takes longer than a step may.
    fn too_long(&self, ctx: usize) -> String {
        let line = |(spelling, policy): &(String, Policy)| {
            let found = self.planner.predict(policy, ctx);
            let alone = found.step_ms_alone.filter(|_| found.sessions == 0)?;
            Some(format!("{spelling}: a step of one session alone takes {alone:.0} ms, more than --itl allows\n"))
        };
        self.policies.iter().filter_map(line).collect()
    }

    fn rows(&self, ctx: usize) -> Vec<Vec<String>> {
        let title = format!("ctx {ctx}");
        let beyond = self.planner.model().context.is_some_and(|context| ctx > context);
        let title = if beyond { format!("{title} (beyond the model's)") } else { title };
        let header = [
            &title,
            "sessions",
            "memory holds",
            "device/session",
            "host/session",
            "tok/s",
            "ratio",
            "overlapped",
            "step ms",
            "linear",
            "attention",
            "link",
            "bound",
            "wins from",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let figure =
            |value: Option<f64>, digits: usize| value.map_or("n/a".to_owned(), |value| format!("{value:.digits$}"));
        // Where neither this policy nor the first has a session there is nothing to win.
        let runs = self.runs(ctx);
        let base = runs.first().map_or(0, |(_, prediction, ..)| prediction.sessions);
        for (index, (policy, prediction, ratio, from)) in runs.into_iter().enumerate() {
            let bound = prediction.bound.map_or("n/a".to_owned(), |bound| format!("{bound:?}").to_lowercase());
            let wins = match from {
                _ if index == 0 => "-".to_owned(),
                None if base == 0 && prediction.sessions == 0 => "n/a".to_owned(),
                None => "never".to_owned(),
                Some(1) => "1 session".to_owned(),
                Some(sessions) => format!("{sessions} sessions"),
            };
            let overlapped =
                if prediction.host_bytes == 0 { "-".to_owned() } else { figure(prediction.tok_s_overlapped, 1) };
            rows.push(vec![
                policy.to_owned(),
                prediction.sessions.to_string(),
                prediction.sessions_in_memory.to_string(),
                size(prediction.device_bytes),
                size(prediction.host_bytes),
                figure(prediction.tok_s, 1),
                ratio.filter(|_| index > 0).map_or("-".to_owned(), |ratio| format!("×{ratio:.2}")),
                overlapped,
                figure(prediction.step_ms, 2),
                figure(prediction.linear_ms, 2),
                figure(prediction.attention_ms, 2),
                figure(prediction.link_ms, 2),
                bound,
                wins,
            ]);
        }
        rows
    }
}

/// Where a full lane is faster than one under the first policy, in words.
fn compared_by_ctx(wins: WinsByCtx, base: &str) -> String {
    let WinsByCtx { up_to, from, longest } = wins;
    match (from, longest) {
        _ if up_to == 0 => format!("cannot be compared with one under {base}: neither has a session at any context"),
        (Some(from), _) if from == up_to => format!("is faster than under {base} at {up_to} tokens, not below"),
        (Some(from), _) => format!("is faster than under {base} from {from} tokens on (looked at up to {up_to})"),
        (None, Some(longest)) => {
            format!(
                "is faster than under {base} only at contexts of at most {longest} tokens (looked at up to {up_to})"
            )
        }
        (None, None) => format!("is not faster than under {base} at any context up to {up_to} tokens"),
    }
}

fn compared_rows(compared: &[Comparison]) -> Vec<Vec<String>> {
    let header = ["policy", "ctx", "sessions run", "sessions predicted", "tok/s measured", "tok/s predicted", "error"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for Comparison { measured, predicted_tok_s, error, predicted_sessions } in compared {
        rows.push(vec![
            measured.policy.clone(),
            measured.ctx.to_string(),
            measured.sessions.to_string(),
            predicted_sessions.map_or("-".to_owned(), |sessions| sessions.to_string()),
            format!("{:.1}", measured.tok_s),
            format!("{predicted_tok_s:.1}"),
            format!("{:+.0} %", error * 100.0),
        ]);
    }
    rows
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes >= 10 * GIB {
        format!("{:.1} GiB", bytes as f64 / GIB as f64)
    } else {
        format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
    }
}
