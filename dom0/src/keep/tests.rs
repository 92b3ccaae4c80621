//! A driver domain that is kept, with a fake `xl` and the fake store. Host.

use super::*;
use split_driver::fakes::{FakeClock, FakeStore, Tasks};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use xen_pv_sys::DomainId;

struct World {
    store: FakeStore,
    clock: FakeClock,
    asked: RefCell<Vec<String>>,
    said: RefCell<Vec<String>>,
    next: Cell<u32>,
    /// The domain, while there is one.
    runs: Cell<Option<u32>>,
    /// Whether domains that are created become ready.
    becomes_ready: Cell<bool>,
    /// The flags of its state.
    state: Cell<&'static str>,
    stopped: Cell<bool>,
    reloaded: Cell<bool>,
    host_stops: Cell<bool>,
    refusal: Cell<Option<&'static str>>,
}

impl World {
    fn new() -> Rc<Self> {
        let store = FakeStore::new();
        store.add_domain(DomainId(0));
        store.put("/local/domain/0/name", "Domain-0", &["n0"]);
        Rc::new(Self {
            store,
            clock: FakeClock::default(),
            asked: RefCell::default(),
            said: RefCell::default(),
            next: Cell::new(1),
            runs: Cell::new(None),
            becomes_ready: Cell::new(true),
            state: Cell::new("-b----"),
            stopped: Cell::new(false),
            reloaded: Cell::new(false),
            host_stops: Cell::new(false),
            refusal: Cell::new(None),
        })
    }

    fn create(&self) {
        let id = self.next.replace(self.next.get() + 1);
        self.store.add_domain(DomainId(id as u16));
        self.store.put(&format!("/local/domain/{id}/name"), "netdom", &["n0"]);
        if self.becomes_ready.get() {
            self.store.put(&format!("/local/domain/{id}/data/ready"), "NIC\u{1b}[31m", &["n0"]);
        }
        self.runs.set(Some(id));
    }

    fn end(&self) {
        let id = self.runs.take().expect("it runs");
        self.store.delete(&format!("/local/domain/{id}"));
    }

    fn creations(&self) -> usize {
        self.asked.borrow().iter().filter(|asked| asked.starts_with("create")).count()
    }
}

struct FakeXl(Rc<World>);

impl Toolstack for FakeXl {
    async fn xl(&self, arguments: &[&str]) -> Result<String> {
        let world = &self.0;
        world.asked.borrow_mut().push(arguments.join(" "));
        match arguments {
            ["create", ..] => world.create(),
            ["destroy", ..] => world.end(),
            ["list", "netdom"] => match world.runs.get() {
                Some(id) => {
                    return Ok(format!("Name ID Mem VCPUs State Time(s)\nnetdom {id} 8 2 {} 0.1\n", world.state.get()));
                }
                None => bail!("netdom is an invalid domain identifier"),
            },
            _ => {}
        }
        Ok(String::new())
    }
}

struct FakeHost(Rc<World>);

impl Host for FakeHost {
    async fn assign(&self, device: PciAddress) -> Result<()> {
        self.0.asked.borrow_mut().push(format!("assign {device}"));
        self.0.refusal.get().map_or(Ok(()), |refusal| bail!("{refusal}"))
    }

    fn is_stopped(&self) -> bool {
        self.0.stopped.get()
    }

    fn is_reloaded(&self) -> bool {
        self.0.reloaded.get()
    }

    fn shuts_down(&self) -> bool {
        self.0.host_stops.get()
    }

    fn say(&self, text: &str, serves: bool) {
        self.0.said.borrow_mut().push(format!("{serves} {text}"));
    }
}

/// Runs it beside what happens, which moves the clock; gives how it ended, where it did.
fn kept(world: &Rc<World>, happens: impl FnOnce(&mut dyn FnMut(u64))) -> Option<Result<End, String>> {
    let config = DriverConfig {
        name: "netdom".into(),
        file: "/etc/xen/oxidom/netdom.cfg".into(),
        kernel: "netdom".into(),
        devices: vec!["00:19.0".parse().unwrap()],
    };
    let (store, result) = (world.store.connection(DomainId(0)), RefCell::new(None));
    let mut tasks = Tasks::new();
    tasks.spawn(async {
        let (toolstack, host) = (FakeXl(Rc::clone(world)), FakeHost(Rc::clone(world)));
        let keep = Keep { config: &config, store: &store, clock: &world.clock, toolstack, host };
        *result.borrow_mut() = Some(keep.run().await.map_err(|error| format!("{error:#}")));
    });
    tasks.run_until_stalled();
    happens(&mut |seconds| {
        for _ in 0..seconds * 4 {
            world.clock.advance(Duration::from_millis(250));
            tasks.run_until_stalled();
        }
    });
    drop(tasks);
    result.into_inner()
}

#[test]
fn a_domain_is_created_and_told_when_it_serves() {
    let world = World::new();
    world.becomes_ready.set(false);
    let ended = kept(&world, |pass| {
        pass(10);
        assert!(!world.said.borrow().iter().any(|said| said.starts_with("true")));
        world.store.put("/local/domain/1/data/ready", "NIC\u{1b}[31m", &["n0"]);
        pass(2);
    });
    assert_eq!(ended, None);
    assert_eq!(world.asked.borrow()[..2], ["assign 0000:00:19.0", "create -q /etc/xen/oxidom/netdom.cfg"]);
    assert_eq!(world.said.borrow().last().unwrap(), "true netdom (domain 1) serves: NIC\u{fffd}[31m");
}

#[test]
fn a_domain_that_runs_already_is_not_created() {
    let world = World::new();
    world.create();
    kept(&world, |pass| pass(5));
    assert_eq!(world.creations(), 0);
    assert!(world.said.borrow().iter().any(|said| said.starts_with("true")));
}

#[test]
fn a_domain_that_xl_created_anew_is_waited_for() {
    let world = World::new();
    kept(&world, |pass| {
        pass(5);
        world.end();
        pass(8);
        world.create();
        pass(5);
    });
    assert_eq!(world.creations(), 1);
    assert_eq!(world.said.borrow().last().unwrap(), "true netdom (domain 2, 1 before) serves: NIC\u{fffd}[31m");
}

#[test]
fn a_domain_that_is_gone_is_created_anew_and_not_for_ever() {
    let world = World::new();
    let ended = kept(&world, |pass| {
        for _ in 0..BUILDS {
            pass(20);
            world.end();
        }
        pass(20);
    });
    assert_eq!(world.creations(), BUILDS);
    assert!(ended.unwrap().unwrap_err().starts_with("netdom ended 5 times within"));
}

#[test]
fn a_device_that_cannot_be_had_ends_it_before_a_domain_is_created() {
    let world = World::new();
    world.refusal.set(Some("this host has no PCI device"));
    assert_eq!(kept(&world, |_| ()), Some(Err("this host has no PCI device".into())));
    assert_eq!(world.creations(), 0);
}

#[test]
fn a_domain_that_does_not_become_ready_is_told_with_its_reason() {
    let world = World::new();
    world.becomes_ready.set(false);
    let ended = kept(&world, |pass| {
        world.store.put("/local/domain/1/data/error", "no driver for 8086:1234", &["n0"]);
        pass(130);
    });
    let said = ended.unwrap().unwrap_err();
    assert!(said.contains("is not ready after") && said.ends_with("no driver for 8086:1234"), "{said}");
}

#[test]
fn at_the_end_it_is_shut_down_and_gone() {
    let world = World::new();
    let ended = kept(&world, |pass| {
        pass(3);
        world.stopped.set(true);
        pass(2);
        world.state.set("---s--");
        pass(10);
        assert!(world.runs.get().is_some());
        world.end();
        pass(2);
    });
    assert_eq!(ended, Some(Ok(End::Stopped)));
    assert!(world.asked.borrow().contains(&"shutdown netdom".to_owned()));
    assert!(!world.asked.borrow().contains(&"destroy netdom".to_owned()));
}

#[test]
fn where_the_host_shuts_down_its_end_is_enough() {
    let world = World::new();
    world.host_stops.set(true);
    let ended = kept(&world, |pass| {
        pass(3);
        world.stopped.set(true);
        pass(2);
        world.state.set("---s--");
        pass(1);
    });
    assert_eq!((ended, world.runs.get()), (Some(Ok(End::Stopped)), Some(1)));
}

#[test]
fn a_domain_that_does_not_shut_down_is_destroyed() {
    let world = World::new();
    let ended = kept(&world, |pass| {
        pass(3);
        world.stopped.set(true);
        pass(60);
    });
    assert_eq!((ended, world.runs.get()), (Some(Ok(End::Stopped)), None));
}

#[test]
fn another_build_goes_on_with_the_domain() {
    let world = World::new();
    let ended = kept(&world, |pass| {
        pass(3);
        world.reloaded.set(true);
        pass(1);
    });
    assert_eq!((ended, world.runs.get()), (Some(Ok(End::Reloaded)), Some(1)));
    kept(&world, |pass| pass(3));
    assert_eq!(world.creations(), 1);
}
