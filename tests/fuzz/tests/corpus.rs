//! The corpora as plain tests, and a short run from a fixed seed.

use fuzz::Target;
use fuzz::netback::Netback;
use std::time::Duration;

#[test]
fn netback_corpus() {
    let inputs = fuzz::read_corpus(&fuzz::corpus_directory("netback")).unwrap();
    assert!(inputs.len() >= 20, "{} inputs", inputs.len());
    let mut target = Netback::new();
    let mut seen = Vec::new();
    for (path, input) in inputs {
        println!("{}", path.display());
        seen.clear();
        target.run(&input, &mut seen);
        assert!(!seen.is_empty());
    }
}

#[test]
fn netback_for_a_second() {
    let mut corpus = Vec::new();
    let report = fuzz::run(&mut Netback::new(), &mut corpus, Duration::from_secs(1), 7);
    assert!(report.executions > 100 && report.seen > 20, "{report:?}");
}
