//! `CONTROL`: what an administrator asks of the store itself. Floor 1.

use alloc::string::String;
use alloc::vec::Vec;

use super::Store;
use super::requests::{Reply, Request};
use crate::payload;
use crate::quota::{Quota, Resource};
use crate::{Error, Host};

/// The commands that the store knows itself, and their words.
const COMMANDS: [(&str, &str); 7] = [
    ("check", ""),
    ("log", "[on|off|+<switch>|-<switch>]"),
    ("memreport", ""),
    ("print", "<string>"),
    ("quota", "[set <name> <val>|<domid>|max [-r]]"),
    ("quota-soft", "[set <name> <val>]"),
    ("help", ""),
];

/// A line of a report: a name, a number and what follows.
fn line(report: &mut String, name: &str, value: usize, rest: &str) {
    report.push_str(&alloc::format!("{name:<17}: {value:>8}{rest}\n"));
}

/// What the host is given: three words, and all that follows.
fn host_words(mut payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut words = 0;
    core::iter::from_fn(move || {
        words += 1;
        match payload::word_and_rest(payload) {
            Ok((word, rest)) if words < 4 => {
                payload = rest;
                Some(word)
            }
            _ => Some(core::mem::take(&mut payload)).filter(|rest| !rest.is_empty()),
        }
    })
}

impl Store {
    pub(super) fn control(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let words: Vec<&[u8]> = payload::words(request.payload).collect();
        let text: Vec<&str> = words.iter().map_while(|word| core::str::from_utf8(word).ok()).collect();
        match text.as_slice() {
            [] if words.is_empty() => Err(Error::EINVAL),
            ["check"] => self.check().map(|()| Reply::Done).map_err(|fault| {
                log::error!("the store does not hold together: {fault}");
                Error::EIO
            }),
            ["log"] => {
                let state = if self.traced { "on" } else { "off" };
                Ok(Reply::word(&alloc::format!("Log switch settings:\n{:<8}: {state}\n", "io")))
            }
            ["log", switch] => {
                self.traced = match *switch {
                    "on" | "+io" => true,
                    "off" | "-io" => false,
                    _ => return Err(Error::EINVAL),
                };
                Ok(Reply::Done)
            }
            ["memreport"] => Ok(Reply::word(&self.memory_report(host))),
            ["print", text] => {
                log::info!("control: {text}");
                Ok(Reply::Done)
            }
            ["quota"] => Ok(Reply::word(&self.quota_report())),
            ["quota", "max"] => Ok(Reply::word(&self.most_report())),
            ["quota", "max", "-r"] => {
                self.domains.reset_most();
                Ok(Reply::word(&self.most_report()))
            }
            ["quota", domain] => self.domain_report(domain.as_bytes()),
            ["quota", "set", name, value] => {
                let quota = Resource::ALL.into_iter().find(|resource| resource.name() == *name).map(Quota::Hard);
                self.control_quota(quota, value)
            }
            ["quota-soft"] => {
                let mut report = String::from("Quota settings:\n");
                let value = self.domains.quotas.get(Quota::SoftMemory) as usize;
                line(&mut report, "memory", value, &alloc::format!(" {}", Resource::Memory.description()));
                Ok(Reply::word(&report))
            }
            ["quota-soft", "set", "memory", value] => self.control_quota(Some(Quota::SoftMemory), value),
            ["help"] => {
                let lines = COMMANDS.iter().map(|(command, words)| alloc::format!("{command:<15} {words}\n"));
                Ok(Reply::word(&lines.collect::<String>()))
            }
            ["check" | "log" | "memreport" | "print" | "quota" | "quota-soft" | "help", ..] => Err(Error::EINVAL),
            _ => {
                let mut reply = Vec::new();
                host.control(&mut host_words(request.payload), &mut reply).unwrap_or(Err(Error::EINVAL))?;
                Ok(if reply.is_empty() { Reply::Done } else { Reply::Bytes(reply) })
            }
        }
    }

    fn control_quota(&mut self, quota: Option<Quota>, value: &str) -> Result<Reply, Error> {
        let value = u32::try_from(payload::number(value.as_bytes())).ok().filter(|value| *value > 0);
        let (quota, value) = quota.zip(value).ok_or(Error::EINVAL)?;
        self.domains.quotas.set(quota, value);
        Ok(Reply::Done)
    }

    fn quota_report(&self) -> String {
        let mut report = String::from("Quota settings:\n");
        for resource in Resource::ALL {
            let value = self.domains.quotas.hard(resource) as usize;
            line(&mut report, resource.name(), value, &alloc::format!(" {}", resource.description()));
        }
        report
    }

    fn most_report(&self) -> String {
        let mut report = String::from("Max. seen accounting values:\n");
        for resource in Resource::ALL {
            line(&mut report, resource.name(), self.domains.most(resource), "");
        }
        report
    }

    fn domain_report(&self, word: &[u8]) -> Result<Reply, Error> {
        let id = u16::try_from(payload::number(word)).map_err(|_| Error::ENOENT)?;
        let domain = self.domains.get(xen_pv_sys::DomainId(id)).ok_or(Error::ENOENT)?;
        let mut report = alloc::format!("Domain {id}:\n");
        for resource in Resource::ALL {
            let most = alloc::format!(" (max {:>8})", domain.most(resource));
            line(&mut report, resource.name(), domain.takes(resource), &most);
        }
        Ok(Reply::word(&report))
    }

    fn memory_report(&self, host: &dyn Host) -> String {
        let counted = self.domains.iter().map(|(_, domain)| domain.takes(Resource::Memory)).sum();
        let transactions = self.connections.values().map(|connection| connection.transactions.len()).sum();
        let watches = self.connections.values().map(|connection| connection.watches.len()).sum();
        let mut report = String::new();
        line(&mut report, "nodes", self.tree.nodes.len(), "");
        line(&mut report, "domains", self.domains.iter().count(), "");
        line(&mut report, "connections", self.connections.len(), "");
        line(&mut report, "watches", watches, "");
        line(&mut report, "transactions", transactions, "");
        line(&mut report, "memory", counted, " bytes counted in quotas");
        if self.domains.memory() > 0 {
            line(&mut report, "memory-max", self.domains.memory(), " bytes until guests are refused more");
            line(&mut report, "memory-free", self.domains.free(), " bytes, a quarter of them for a guest");
        }
        if let Some(bytes) = host.memory_in_use() {
            line(&mut report, "heap", bytes, " bytes in use");
        }
        report
    }
}
