//! The benchmarks are in `benches/`: one criterion target per seam. Run them with `cargo bench -p kubeedge-benches`.
