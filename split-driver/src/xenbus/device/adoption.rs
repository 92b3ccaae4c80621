//! Devices that an earlier life of the domain had connected, and what this one leaves to the next. Pure over the store's trait. Floor 1.

use alloc::string::String;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::Poll;

use log::Level;
use xen_pv_sys::io::xenbus::XenbusState;

use super::{Backend, DeviceHandle, End, Frontend, Nodes, Phase, Seen, Session, Store, Timer};
use crate::xenbus::connections::Connection;

impl<S: Store, T: Timer, B: Backend> Session<'_, S, T, B> {
    /// Serves a device on as the last life wrote it down, before the store is asked. Where that cannot be, the store tells what to do.
    pub(super) async fn resume(&mut self, connection: Connection) {
        let Connection { frontend, nodes, .. } = connection;
        self.frontend = Some(Frontend { path: frontend, watch: None });
        match self.prepare(&nodes).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return self.context.connections.forget(self.id),
        }
        let handle = DeviceHandle::new(self.id, &self.mailbox);
        match self.context.backend.adopt(&handle, &nodes) {
            Ok(device) => self.take_on(device, "taken over"),
            Err(error) => {
                log::warn!("{self}: not as the last life left it: {error}");
                self.disconnect();
                return;
            }
        }
        (self.phase, self.state) = (Phase::Connected, XenbusState::Connected);
        self.frontend_state = XenbusState::Connected;
        // The nodes may say something else by now: the first event of the watch on the frontend's directory has them read again.
        self.adopted = true;
        self.note_connection(nodes);
        self.context.beginning.begun(self.id);
        // The others are served before the store is asked about this one.
        let mut yielded = false;
        poll_fn(|context| {
            if core::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Goes on where the last life was, by what our `state` says. Whether it was further than the announcement.
    pub(super) async fn inherit(&mut self, seen: Seen) -> Result<bool, End> {
        // What the last life said of a device is there still.
        self.error_written = true;
        match self.state {
            XenbusState::Connected | XenbusState::Reconfigured => {
                let open = matches!(
                    seen.frontend,
                    XenbusState::Connected | XenbusState::Reconfiguring | XenbusState::Reconfigured
                ) || self.context.backend.connects(seen.frontend);
                self.adopted = open && !seen.removing && !seen.refused && self.adopt().await?;
                self.phase = Phase::Connected;
            }
            XenbusState::Closing => self.phase = Phase::Closing,
            XenbusState::Closed => self.phase = Phase::Closed,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Serves a device on as the store has it, once the kind is ready for it; false where it refuses, or the device is removed meanwhile.
    async fn adopt(&mut self) -> Result<bool, End> {
        let nodes = self.nodes(true).await?;
        Ok(self.prepare(&nodes).await? && self.take_up(true).await?)
    }

    /// Forgets writes of nodes that say so already, so that its frontend sees nothing of the adoption.
    pub(super) async fn keep_nodes(&mut self) -> Result<(), End> {
        let (connection, mut writes) = self.mailbox.take_writes();
        let names: Vec<&String> = writes.keys().collect();
        let said = self.directory(&self.path, &names).await;
        self.properties.extend(writes.keys().cloned());
        if let Ok(said) = &said {
            writes.retain(|name, value| said.get(name) != Some(value.as_bytes()));
        }
        self.mailbox.return_writes(connection, writes);
        said?;
        self.adopted = false;
        self.count_nodes().await;
        Ok(())
    }

    /// Has the kind take the device up, anew or where the last life left it, by what the nodes say; false where it refuses.
    pub(super) async fn take_up(&mut self, inherited: bool) -> Result<bool, End> {
        let nodes = self.nodes(true).await?;
        let handle = DeviceHandle::new(self.id, &self.mailbox);
        let backend = &self.context.backend;
        let (verb, taken) = match inherited {
            true => ("taken over", backend.adopt(&handle, &nodes)),
            false => ("connected", backend.connect(&handle, &nodes)),
        };
        match taken {
            Ok(device) => {
                self.take_on(device, verb);
                self.note_connection(nodes);
                Ok(true)
            }
            Err(error) => {
                self.refuse(self.fault(&error), &error).await;
                Ok(false)
            }
        }
    }

    fn take_on(&mut self, device: B::Device, verb: &str) {
        let description = self.context.backend.describe(&device);
        self.device = Some(device);
        self.say(Level::Info, &format_args!("{verb} {description}"));
    }

    /// Writes a connected device down for the next life.
    pub(super) fn note_connection(&self, nodes: Nodes) {
        if self.device.is_some()
            && let Some(Frontend { path, .. }) = &self.frontend
        {
            self.context.connections.note(&Connection { id: self.id, frontend: path.clone(), nodes });
        }
    }
}
