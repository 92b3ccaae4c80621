//! Requests against the number of nodes, and events against the number of watches: `cargo bench -p xenstore-lite --bench requests`. Host.

mod scene;

use criterion::{BenchmarkId, Criterion};
use scene::Scene;
use std::time::Duration;
use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::*;
use xenstore_lite::fakes::request;
use xenstore_lite::{Config, Store};

/// A guest's state node; which one goes round, so that no cache has them all.
fn state(scene: &Scene, turn: usize) -> String {
    format!("/local/domain/{}/device/{}/state\0", turn.wrapping_mul(7919) % scene.guests, turn % 10)
}

fn by_nodes(criterion: &mut Criterion) {
    for nodes in [1_000, 10_000, 100_000, 1_000_000] {
        let mut scene = Scene::new(nodes);
        let mut group = criterion.benchmark_group("nodes");
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("read", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let path = state(&scene, turn);
                scene.ask(XS_READ, 0, &path);
            });
        });
        group.bench_function(BenchmarkId::new("write", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let path = state(&scene, turn);
                scene.ask(XS_WRITE, 0, &format!("{path}{}", turn % 7));
            });
        });
        // As stubdom does: the state before the write is kept until the one after it is there.
        let mut kept = scene.store.clone();
        group.bench_function(BenchmarkId::new("write, the state kept", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let path = state(&scene, turn);
                scene.ask(XS_WRITE, 0, &format!("{path}{}", turn % 7));
                kept = scene.store.clone();
            });
        });
        drop(kept);
        group.bench_function(BenchmarkId::new("directory", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let guest = turn.wrapping_mul(7919) % scene.guests;
                scene.ask(XS_DIRECTORY, 0, &format!("/local/domain/{guest}/device\0"));
            });
        });
        group.bench_function(BenchmarkId::new("make and remove", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                let guest = turn.wrapping_mul(7919) % scene.guests;
                scene.ask(XS_MKDIR, 0, &format!("/local/domain/{guest}/new\0"));
                scene.ask(XS_RM, 0, &format!("/local/domain/{guest}/new\0"));
            });
        });
        // Ten nodes that it owns and one that names it.
        group.bench_function(BenchmarkId::new("a domain and its end", nodes), |bench| {
            bench.iter(|| {
                let domain = DomainId(60_000);
                scene.host.domains.insert(domain, 1);
                scene.ask(XS_INTRODUCE, 0, &format!("60000\0{}\0{}\0", 1, 2));
                scene.ask(XS_MKDIR, 0, "/local/domain/60000\0");
                scene.ask(XS_SET_PERMS, 0, "/local/domain/60000\0n60000\0");
                (0..9).for_each(|node| scene.ask(XS_MKDIR, 0, &format!("/local/domain/60000/{node}\0")));
                scene.ask(XS_SET_PERMS, 0, "/local/domain/0\0n0\0r60000\0");
                scene.host.domains.remove(&domain);
                scene.store.handle_domain_gone(domain, &mut scene.host);
            });
        });
        let mut transaction = 0;
        group.bench_function(BenchmarkId::new("transaction", nodes), |bench| {
            bench.iter(|| {
                turn += 1;
                transaction += 1;
                let path = state(&scene, turn);
                scene.ask(XS_TRANSACTION_START, 0, "\0");
                scene.ask(XS_READ, transaction, &path);
                scene.ask(XS_WRITE, transaction, &format!("{path}{}", turn % 7));
                scene.ask(XS_TRANSACTION_END, transaction, "T\0");
            });
        });
        group.finish();
    }
}

/// What a live update costs, and a new life after a failure.
fn whole_state(criterion: &mut Criterion) {
    for nodes in [1_000, 10_000] {
        let scene = Scene::new(nodes);
        let mut group = criterion.benchmark_group("state");
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
        let mut bytes = Vec::new();
        group.bench_function(BenchmarkId::new("write", nodes), |bench| {
            bench.iter(|| {
                bytes.clear();
                scene.store.write_state(&mut |more| bytes.extend_from_slice(more));
            });
        });
        group.bench_function(BenchmarkId::new("read", nodes), |bench| {
            bench.iter_with_large_drop(|| Store::read_state(&bytes, Config::default()).expect("a state"));
        });
        group.finish();
    }
}

/// A write that one watch hears, of so many that lie elsewhere.
fn by_watches(criterion: &mut Criterion) {
    for watches in [1, 10, 100, 1_000, 10_000] {
        let mut scene = Scene::new(100_000);
        for watch in 0..watches {
            let path = state(&scene, watch);
            scene.ask(XS_WATCH, 0, &format!("{path}{watch}\0"));
        }
        let write = request(XS_WRITE, 0, format!("{}x", state(&scene, 0)).as_bytes());
        let mut group = criterion.benchmark_group("watches");
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
        let dom0 = scene.dom0;
        group.bench_function(BenchmarkId::new("write and event", watches), |bench| {
            bench.iter(|| scene.send(dom0, &write));
        });
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    by_nodes(&mut criterion);
    whole_state(&mut criterion);
    by_watches(&mut criterion);
    criterion.final_summary();
}
