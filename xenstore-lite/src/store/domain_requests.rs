//! Requests about domains: connections, targets, features, quotas. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::{DomainId, Port};

use super::Store;
use super::requests::{Reply, Request};
use crate::domains::Domain;
use crate::payload;
use crate::quota::Quota;
use crate::{Error, Host, path};

impl Store {
    pub(super) fn introduce(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let [domain, _frame, port] = payload::at_least(request.payload)?;
        let domain = payload::domain(domain)?;
        let port = u32::try_from(payload::number(port)).ok().filter(|port| *port > 0).ok_or(Error::EINVAL)?;
        host.introduce(domain, Port(port))?;
        if let Some(id) = self.connection(domain) {
            self.reset(id);
        } else {
            let unique = host.domain(domain).unwrap_or_default();
            if let Some(known) = self.domains.ensure(domain, unique, self.tree.generation()) {
                known.unique = unique;
            }
            self.connect(domain);
        }
        Ok(Reply::Done)
    }

    /// A domain that is connected, by its number.
    fn connected(&mut self, domain: DomainId) -> Result<&mut Domain, Error> {
        let known = self.domains.get_mut(domain).filter(|domain| domain.introduced).ok_or(Error::ENOENT)?;
        if known.connection.is_some() { Ok(known) } else { Err(Error::EINVAL) }
    }

    /// The one domain that a request names, which may be neither the store's nor the privileged one.
    fn named(&mut self, request: Request<'_>) -> Result<DomainId, Error> {
        let domain = payload::domain(payload::only(request.payload)?)?;
        if domain == self.own || domain == self.domains.privileged {
            return Err(Error::EINVAL);
        }
        Ok(domain)
    }

    pub(super) fn release(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let domain = self.named(request)?;
        // One that was cut off may be released as well.
        self.domains.get(domain).filter(|domain| domain.introduced).ok_or(Error::ENOENT)?;
        self.forget(domain, host);
        Ok(Reply::Done)
    }

    pub(super) fn resume(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let domain = self.named(request)?;
        self.connected(domain)?.shutdown = false;
        Ok(Reply::Done)
    }

    pub(super) fn set_target(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let [domain, target] = payload::at_least(request.payload)?;
        let (domain, target) = (payload::domain(domain)?, payload::domain(target)?);
        self.connected(domain)?;
        self.connected(target)?;
        self.connected(domain)?.target = Some(target);
        Ok(Reply::Done)
    }

    pub(super) fn domain_path(request: Request<'_>) -> Result<Reply, Error> {
        let domain = payload::domain(payload::only(request.payload)?)?;
        let mut path = path::home(domain);
        path.push(0);
        Ok(Reply::Bytes(path))
    }

    pub(super) fn is_introduced(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let domain = payload::domain(payload::only(request.payload)?)?;
        let known = self.domains.get(domain).is_some_and(|domain| domain.introduced);
        Ok(Reply::word(if known || domain == DomainId::SELF { "T" } else { "F" }))
    }

    /// The domain of that word, if there is one.
    fn existing(&mut self, word: &[u8], host: &mut dyn Host) -> Result<DomainId, Error> {
        let domain = payload::domain(word)?;
        let generation = self.tree.generation();
        self.domains.ensure_existing(domain, generation, host).map(|_| domain).ok_or(Error::ENOENT)
    }

    fn features(&self, domain: DomainId) -> u32 {
        self.domains.get(domain).map_or(self.domains.features, |domain| domain.features)
    }

    pub(super) fn get_feature(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let mut words = payload::words(request.payload);
        let domain = match (words.next(), words.next()) {
            (None, _) => request.caller.domain,
            _ if !request.caller.privileged => return Err(Error::EACCES),
            (Some(word), None) => self.existing(word, host)?,
            _ => return Err(Error::EINVAL),
        };
        Ok(Reply::word(&alloc::format!("{}", self.features(domain))))
    }

    pub(super) fn set_feature(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let [domain, features] = payload::exactly(request.payload)?;
        let features = u32::try_from(payload::number(features)).ok();
        let domain = self.existing(domain, host)?;
        let supported = self.domains.features;
        let record = self.domains.get_mut(domain).ok_or(Error::ENOENT)?;
        if record.introduced {
            return Err(Error::EBUSY);
        }
        record.features = features.filter(|features| features & !supported == 0).ok_or(Error::EINVAL)?;
        Ok(Reply::Done)
    }

    pub(super) fn get_quota(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let mut words = payload::words(request.payload);
        let (domain, name) = match (words.next(), words.next(), words.next()) {
            (None, ..) => {
                let names: Vec<&str> = Quota::all().map(|(_, name)| name).collect();
                return Ok(Reply::word(&names.join(" ")));
            }
            (Some(name), None, _) => (None, name),
            (Some(domain), Some(name), None) => (Some(self.existing(domain, host)?), name),
            _ => return Err(Error::EINVAL),
        };
        let quota = Quota::from_name(name).ok_or(Error::EINVAL)?;
        let value = domain.map_or_else(|| self.domains.quotas.get(quota), |domain| self.domains.quota(domain, quota));
        Ok(Reply::word(&alloc::format!("{value}")))
    }

    pub(super) fn set_quota(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let mut words = payload::words(request.payload);
        let (domain, name, value) = match (words.next(), words.next(), words.next(), words.next()) {
            (Some(name), Some(value), None, _) => (None, name, value),
            (Some(domain), Some(name), Some(value), None) => (Some(self.existing(domain, host)?), name, value),
            _ => return Err(Error::EINVAL),
        };
        let quota = Quota::from_name(name).ok_or(Error::EINVAL)?;
        let value = u32::try_from(payload::number(value)).map_err(|_| Error::EINVAL)?;
        match domain {
            Some(domain) => self.domains.set_quota(domain, quota, value),
            None => self.domains.quotas.set(quota, value),
        }
        Ok(Reply::Done)
    }
}
