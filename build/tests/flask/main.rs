//! The FLASK policy of docs/flask compiles, and does not with a rule beside it that it forbids. Host.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest form of a policy that the hypervisors take which have the classes of this one.
const VERSION: &str = "30";

fn below(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join(path)
}

/// Runs a program with a text as its input; its output, or what it says of its failure.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask test --host` installs it"));
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Compiles the module with some lines more; `definitions` are for m4.
fn compile(more: &str, definitions: &[&str]) -> Result<(), String> {
    let files =
        ["build/tests/flask/head.conf", "docs/flask/oxidom.if", "docs/flask/oxidom.te", "build/tests/flask/tail.conf"];
    let [head, macros, module, tail] = files.map(|file| std::fs::read_to_string(below(file)).expect("a file"));
    let policy = run("m4", definitions, &[&head, &macros, &module, more, "\n", &tail].concat())?;
    // It reads no pipe, as it begins anew at some point.
    let directory =
        std::env::temp_dir().join(format!("oxidom-flask-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (source, compiled) = (directory.join("policy.conf"), directory.join("policy"));
    std::fs::write(&source, policy).expect("a file");
    let paths = [&compiled, &source].map(|path| path.to_str().expect("a name"));
    let result = run("checkpolicy", &["-t", "Xen", "-c", VERSION, "-o", paths[0], paths[1]], "");
    let there = compiled.exists();
    std::fs::remove_dir_all(&directory).expect("the directory");
    result.map(|_| assert!(there, "no policy came of it"))
}

#[test]
fn the_policy_compiles() {
    compile("", &[]).expect("it compiles");
    compile("", &["-Doxidom_domain_state"]).expect("it compiles for Xen 4.21");
}

#[test]
fn guests_of_another_type_are_a_few_lines() {
    let more = "type work_t, domain_type; type work_t_channel, event_type;
        type_transition work_t domain_type:event work_t_channel;
        oxidom_serves(oxidom_netdom_t, work_t)
        oxidom_switches(work_t, domU_t)";
    compile(more, &[]).expect("it compiles");
}

#[test]
fn what_an_image_must_not_have_does_not_compile() {
    let forbidden = [
        "allow oxidom_netdom_t domU_t:domain pause;",
        "allow oxidom_blkdom_t dom0_t:domain getdomaininfo;",
        "allow oxidom_store_t domU_t:domain destroy;",
        "allow oxidom_netdom_t domU_t:mmu map_read;",
        "allow oxidom_store_t domio_t:mmu map_write;",
        "allow oxidom_netdom_t oxidom_disk_t:resource use_iommu;",
        "allow oxidom_blkdom_t oxidom_disk_t:resource use_noiommu;",
        "allow oxidom_store_t oxidom_nic_t:resource use_iommu;",
        "allow oxidom_blkdom_t xen_t:security load_policy;",
        "allow oxidom_netdom_t xen_t:xen readconsole;",
        "allow domU_t oxidom_store_t:grant map_write;",
    ];
    for rule in forbidden {
        let error = compile(rule, &[]).expect_err(rule);
        assert!(error.contains("neverallow"), "{rule}: {error}");
    }
}
