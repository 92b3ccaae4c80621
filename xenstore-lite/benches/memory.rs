//! Bytes that a node takes, by what the process grew: `cargo bench -p xenstore-lite --bench memory`. Host, Linux.

mod scene;

use scene::{NODES_A_GUEST, Scene};

/// Bytes of this process in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

fn main() {
    // Tests of all targets call this too, and want no long run.
    let sizes: &[usize] =
        if std::env::args().any(|word| word == "--bench") { &[10_000, 100_000, 1_000_000] } else { &[1000] };
    for nodes in sizes {
        let before = resident();
        let scene = Scene::new(*nodes);
        let made = scene.guests * NODES_A_GUEST;
        println!("{made} nodes: {} bytes a node", (resident() - before) / made);
        // What is freed may be taken again without a growth that could be seen.
        std::mem::forget(scene);
    }
}
