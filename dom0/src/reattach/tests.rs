use super::*;
use split_driver::fakes::{FakeClock, FakeStore, Tasks};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use xen_pv_sys::DomainId;

/// A host with a guest whose vif and disk were a domain's of number 3, which is gone.
struct Host {
    store: FakeStore,
    clock: FakeClock,
    /// What `xl` was asked.
    asked: RefCell<Vec<String>>,
    /// Attachments that the guest does not see.
    missed: Cell<u32>,
    /// What `xl` says to a detachment.
    refusal: Option<&'static str>,
    /// The guest's command line and its disks, where the config has them.
    root: Option<(&'static str, &'static [&'static str])>,
}

const GUEST: u32 = 5;
const NEW: u32 = 9;

impl Host {
    fn new(refusal: Option<&'static str>, missed: u32) -> Rc<Self> {
        let store = FakeStore::new();
        for (id, name) in [(0, "Domain-0"), (GUEST, "guest"), (7, "other")] {
            store.add_domain(DomainId(id as u16));
            store.put(&format!("/local/domain/{id}/name"), name, &["n0"]);
        }
        for (node, value) in [
            ("vif/0/backend", "/local/domain/3/backend/vif/5/0"),
            ("vif/0/mac", "00:16:3e:00:00:01"),
            ("vif/1/backend", "/local/domain/7/backend/vif/5/1"),
            ("vbd/51712/backend", "/local/domain/3/backend/vbd/5/51712"),
            ("vbd/51712/dev", "xvda"),
            ("vbd/51712/type", "phy"),
            ("vbd/51712/params", "vg0/guest"),
            ("console/0/backend", "/local/domain/3/backend/console/5/0"),
        ] {
            store.put(&format!("/libxl/{GUEST}/device/{node}"), value, &["n0"]);
        }
        // Another domain's device is as it should be.
        store.put("/local/domain/7/backend/vif/5/1/state", "4", &["n7"]);
        Rc::new(Self {
            store,
            clock: FakeClock::default(),
            asked: RefCell::default(),
            missed: Cell::new(missed),
            refusal,
            root: None,
        })
    }

    fn create(&self, name: &str) {
        self.store.add_domain(DomainId(NEW as u16));
        self.store.put(&format!("/local/domain/{NEW}/name"), name, &["n0"]);
        self.store.put(&format!("/local/domain/{NEW}/data/ready"), "yes", &["n9"]);
    }

    fn attach(&self, kind: &str, id: u32) {
        let backend = format!("/local/domain/{NEW}/backend/{kind}/{GUEST}/{id}");
        self.store.put(&format!("/libxl/{GUEST}/device/{kind}/{id}/backend"), &backend, &["n0"]);
        let state = if self.missed.get() > 0 { "6" } else { "4" };
        self.missed.set(self.missed.get().saturating_sub(1));
        self.store.put(&format!("{backend}/state"), state, &["n9"]);
    }

    /// Runs the command; gives what came of it, and the seconds that it took.
    fn run(self: &Rc<Self>, only: Option<&str>, known: bool) -> (Result<Vec<Attached>, String>, u64) {
        let (host, result, start) = (Rc::clone(self), RefCell::new(None), self.clock.now());
        let mut tasks = Tasks::new();
        tasks.spawn(async {
            let connection = host.store.connection(DomainId(0));
            let toolstack = FakeXl { host: Rc::clone(&host), known };
            let command = Reattach { store: &connection, clock: &host.clock, toolstack };
            let done = command.run(only).await.map_err(|error| format!("{error:#}"));
            *result.borrow_mut() = Some((done, host.clock.now().since(start).as_secs()));
        });
        tasks.run_until_stalled();
        for _ in 0..2000 {
            self.clock.advance(Duration::from_millis(100));
            tasks.run_until_stalled();
        }
        drop(tasks);
        result.into_inner().expect("it ends")
    }
}

struct FakeXl {
    host: Rc<Host>,
    /// Whether the config tells backends' names.
    known: bool,
}

impl Toolstack for FakeXl {
    async fn xl(&self, arguments: &[&str]) -> Result<String> {
        let host = &self.host;
        match arguments {
            ["list", "-l", "5"] if self.known => {
                let (line, disks) = host.root.unwrap_or(("", &["xvda"]));
                let disk = |disk| serde_json::json!({"vdev": disk, "backend_domname": "driver"});
                let config = serde_json::json!([{"domid": 5, "config": {
                    "b_info": {"kernel": "/boot/vmlinuz", "cmdline": line},
                    "nics": [{"devid": 1, "backend_domname": "other"}, {"devid": 0, "backend_domname": "driver"}],
                    "disks": disks.iter().map(disk).collect::<Vec<_>>()}}]);
                return Ok(config.to_string());
            }
            ["list", "-l", _] => bail!("no config"),
            [detach, ..] if detach.ends_with("detach") && host.refusal.is_some() => {
                bail!("{}", host.refusal.unwrap_or_default());
            }
            ["network-attach", ..] => host.attach("vif", 0),
            ["block-attach", ..] => host.attach("vbd", 51712),
            _ => {}
        }
        host.asked.borrow_mut().push(arguments.join(" "));
        Ok(String::new())
    }
}

const ALL: [&str; 4] = [
    "network-detach 5 0",
    "network-attach 5 devid=0 backend=driver mac=00:16:3e:00:00:01",
    "block-detach 5 xvda",
    "block-attach 5 format=raw,vdev=xvda,access=rw,backend=driver,backendtype=phy,target=vg0/guest",
];

#[test]
fn what_lost_its_backend_is_attached_to_the_new_one() {
    for (only, known) in [(None, true), (Some("driver"), true), (Some("9"), true), (Some("driver"), false)] {
        let host = Host::new(None, 0);
        host.create("driver");
        let (attached, _) = host.run(only, known);
        let attached = attached.unwrap();
        assert_eq!(*host.asked.borrow(), ALL, "{only:?}");
        assert!(attached.iter().all(|attached| attached.failure.is_none() && attached.guest.name == "guest"));
        assert_eq!(attached.iter().map(|attached| attached.name.as_str()).collect::<Vec<_>>(), ["0", "xvda"]);
        // There is nothing left to do.
        assert!(host.run(only, known).0.unwrap().is_empty());
    }
}

#[test]
fn a_device_that_the_guest_missed_is_attached_once_more() {
    let host = Host::new(None, 1);
    host.create("driver");
    let (attached, seconds) = host.run(None, true);
    assert!(attached.unwrap().iter().all(|attached| attached.failure.is_none()));
    assert_eq!(host.asked.borrow().len(), 6);
    assert!((15..20).contains(&seconds), "{seconds} s");
    let host = Host::new(None, 4);
    host.create("driver");
    let attached = host.run(None, true).0.unwrap();
    let failures: Vec<&str> = attached.iter().filter_map(|attached| attached.failure.as_deref()).collect();
    let [vif, vbd] = failures[..] else { panic!("{attached:?}") };
    assert!(vif.contains("does not connect (state 6): its driver"), "{vif}");
    assert!(vbd.contains("does not connect (state 6): `xl destroy 5`, and create"), "{vbd}");
}

/// A guest whose root is where its command line says, with its disk alone or with another one.
fn with_root(line: &'static str, disks: &'static [&'static str]) -> Rc<Host> {
    let host = Rc::into_inner(Host::new(None, 0)).expect("it is new");
    let host = Rc::new(Host { root: Some((line, disks)), ..host });
    host.create("driver");
    host
}

#[test]
fn the_root_disk_is_left_alone() {
    for line in ["root=/dev/xvda1", "root=UUID=0f0e0d0c-0b0a-4908-8706-050403020100", "root=LABEL=root"] {
        let host = with_root(line, &["xvda"]);
        let attached = host.run(None, true).0.unwrap();
        let [vif, vbd] = &attached[..] else { panic!("{attached:?}") };
        assert_eq!((&vif.failure, &vif.note), (&None, &None), "{line}");
        let why = vbd.failure.as_deref().unwrap_or_default();
        assert!(why.contains(line) && why.contains("cannot come back: `xl destroy 5`"), "{why}");
        assert_eq!(*host.asked.borrow(), ALL[..2], "{line}");
    }
}

#[test]
fn a_disk_that_may_be_the_root_is_attached_and_that_is_said() {
    let host = with_root("root=UUID=0f0e0d0c-0b0a-4908-8706-050403020100", &["xvda", "xvdb"]);
    let attached = host.run(None, true).0.unwrap();
    let [vif, vbd] = &attached[..] else { panic!("{attached:?}") };
    assert_eq!((&vif.failure, &vif.note, &vbd.failure), (&None, &None, &None));
    let note = vbd.note.as_deref().unwrap_or_default();
    assert!(
        note.contains("cannot be told") && note.contains("root=UUID=") && note.contains("`xl destroy 5`"),
        "{note}"
    );
    assert_eq!(*host.asked.borrow(), ALL);
}

#[test]
fn a_name_that_means_nothing_is_refused_with_those_that_do() {
    let host = Host::new(None, 0);
    for word in ["drivers", "8", ""] {
        let (refused, seconds) = host.run(Some(word), true);
        let expected = format!(
            "there is no domain {word}, and no guest has a device of one of that name; \
             the domains whose devices guests have lost: driver"
        );
        assert_eq!((refused.unwrap_err(), seconds), (expected, 0));
    }
    // A number of a domain that is gone does not tell its name, where no config does.
    let refused = host.run(Some("3"), false).0.unwrap_err();
    assert!(refused.starts_with("there is no domain 3, and") && refused.ends_with("say the name"), "{refused}");
    assert!(host.asked.borrow().is_empty());
    host.create("driver");
    host.run(None, true).0.unwrap();
    let refused = host.run(Some("drivers"), true).0.unwrap_err();
    assert!(refused.ends_with("all devices have their backends: there is nothing to attach"), "{refused}");
    // Domains that lost nothing are no mistake.
    for word in ["driver", "9", "other", "7"] {
        assert!(host.run(Some(word), true).0.unwrap().is_empty(), "{word}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let host = Host::new(Some("it is in use"), 0);
    host.create("driver");
    let attached = host.run(None, true).0.unwrap();
    assert!(attached.iter().all(|attached| attached.failure.as_ref().is_some_and(|why| why.contains("it is in use"))));
    // Of no domain is the name known.
    let host = Host::new(None, 0);
    let attached = host.run(None, false).0.unwrap();
    assert!(attached.iter().all(|attached| attached.failure.as_ref().is_some_and(|why| why.contains("say it"))));
    assert!(host.asked.borrow().is_empty());
    // Nothing is taken from the guest before there is something else for it.
    let (attached, seconds) = host.run(None, true);
    assert!(attached.is_err_and(|error| error.contains("there is no domain driver now: create it")));
    assert!((60..62).contains(&seconds) && host.asked.borrow().is_empty(), "{seconds} s");
    // Devices of another domain are left alone.
    host.create("driver");
    assert!(host.run(Some("other"), true).0.unwrap().is_empty());
    assert!(host.asked.borrow().is_empty());
}
