//! The words on the screen and what they mean, for the help.

/// Each word with its meaning in a sentence or two.
pub const WORDS: &[(&str, &str)] = &[
    (
        "policy",
        "How a lane keeps and reads its cache: kv, kv-q8 or kcache:n=128,tail=mean,… The same words are used in the \
         configuration, in flags and on the screen.",
    ),
    ("lane", "One running policy with its own sequences and its own budget. Two run side by side: ● KCache and ○ KV."),
    ("session", "A conversation. It has one sequence of tokens in each lane that answers it."),
    ("K and V", "What attention keeps of every token: a key to find it by, and a value to read."),
    ("top-N, N", "How many rows a query head reads per token: those with the largest attention weights."),
    ("rows", "A row is the V vector of one token for one KV head. KCache reads N of them, an ordinary cache all."),
    (
        "kept mass",
        "The share of the attention weight that lies on the rows that were read. It is known exactly, because K is \
         complete.",
    ),
    ("lost", "One less the kept mass: the attention weight on the rows that were not read."),
    (
        "tail",
        "What stands for the rows that were not read: none (nothing), renorm (the others weigh more) or mean (the mean \
         of all rows).",
    ),
    ("dense", "The first layers that keep V on the device and read every row."),
    ("select", "Whether each query head chooses its own rows (head), or the heads of one KV head together (group)."),
    ("p", "Each head reads only as many rows as hold this share of its attention weight, and no more than N."),
    ("profile", "How many rows each head reads, learnt by kcache tune. With one, N is the mean over all heads."),
    ("device, host", "Where pages lie: the memory of the device, which is scarce, or that of the host."),
    (
        "simulated",
        "Device and host are two accounts of one memory, because this computer computes on its processor. The bytes \
         are counted as a device would hold them.",
    ),
    ("budget", "The most bytes that a lane's cache may hold on the device."),
    ("page", "A piece of the cache: 64 tokens of one layer's K or V."),
    ("ledger", "The account of every byte by place and owner: weights, K, V, tail, workspace."),
    ("KV equivalent, KV eq.", "What an ordinary KV cache would hold for the same tokens. Its sign is ◌."),
    ("prefill", "The prompt is read: its tokens are computed in chunks, with exact attention."),
    ("decode", "Tokens of an answer are computed, one in each step."),
    ("step", "One pass of one lane over all sequences that it computes at once."),
    ("TTFT, first after", "Time to first token: from sending the message to the first word of the answer."),
    ("ITL, seen", "Inter-token latency: the time between two tokens of an answer, as a reader sees it."),
    ("ms per token", "The time of a step. p50 is the median; p99 is what one in a hundred exceeds."),
    ("tok/s", "Tokens per second."),
    ("KL, nats", "How far a prediction is from the exact one, in nats: 0 is the same, 0.01 is hardly seen, 1 is far."),
    ("agree", "The share of tokens at which both lanes find the same token likeliest, where both read the same text."),
    ("parted, ≠", "The first token at which the answers of the two lanes differ. After it they read different texts."),
    ("compare", "Both lanes are given the tokens of KV, so that their predictions can be compared token by token."),
    ("probe", "Now and then a token is computed with exact attention as well, to see how far its prediction is off."),
    (
        "guard, !",
        "Watches kept mass and KL of the probes while an answer is made. Where they stay bad it warns, or goes on with \
         full attention.",
    ),
    ("sink, recent", "The share of the rows read that are among the first 4 tokens, and among the last 64."),
    ("queue, waiting", "Answers that wait until the budget has room for them."),
    ("preempted", "An answer made room for another. Its pages wait in host memory, or are computed again."),
    ("prefix hits", "Tokens that were not computed again, because another session begins with the same ones."),
    ("load", "Sessions that the program opens by itself at a rate, to see a lane under pressure. Its sign is ≡."),
    ("demo, ◇", "A session in which the program itself asks."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_word_stands_once_and_has_a_sentence() {
        let names: BTreeSet<_> = WORDS.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), WORDS.len());
        assert!(WORDS.iter().all(|(_, text)| text.ends_with('.') && text.starts_with(|c: char| c.is_uppercase())));
    }
}
