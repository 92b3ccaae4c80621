//! What Xen tells a xenstore domain of the other domains. Floor 2.
//!
//! Unsafe because a hypercall writes into memory.

use crate::hypercall::{self, number};
use split_driver::domains::{Change, DomainState};
use split_driver::hypervisor::XenError;
use xen_pv_sys::DomainId;
use xen_pv_sys::domctl::{
    Domctl, GetDomainInfo, GetDomainState, XEN_DOMCTL_GET_DOMAIN_STATE, XEN_DOMCTL_GETDOMAININFO,
    XEN_DOMCTL_GETDOMSTATE_STATE_DEAD, XEN_DOMCTL_GETDOMSTATE_STATE_EXIST, XEN_DOMCTL_GETDOMSTATE_STATE_SHUTDOWN,
    XEN_DOMCTL_INTERFACE_VERSION, XEN_DOMINF_DYING, XEN_DOMINF_SHUTDOWN,
};
use xen_pv_sys::errno::{EACCES, ESRCH};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// Versions of the interface that are tried, from 4.17's on. What is read of [`GetDomainInfo`] has not moved in any of them.
const VERSIONS: u32 = 16;

/// By which command this Xen is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    /// `get_domain_state`, which no version of the interface matters to.
    State,
    /// `getdomaininfo`, by this version.
    Info(u32),
}

/// The domains of the host. For a domain that was created as the xenstore's; Xen refuses others.
#[derive(Clone, Copy, Debug)]
pub struct Domains {
    command: Command,
}

impl Domains {
    /// Finds out how this Xen is asked.
    ///
    /// # Errors
    /// Why it answers in no way that is known.
    pub fn new() -> Result<Self, XenError> {
        let versions = (0..VERSIONS).map(|step| Command::Info(XEN_DOMCTL_INTERFACE_VERSION + step));
        let mut refusal = XenError::Exhausted;
        for command in core::iter::once(Command::State).chain(versions) {
            match ask(command, DomainId(0)) {
                Ok(_) => return Ok(Self { command }),
                Err(error) => refusal = error,
            }
            // A wrong version; all other refusals are the last word on the command.
            if refusal != XenError::Errno(EACCES) && command != Command::State {
                break;
            }
        }
        Err(refusal)
    }

    /// By which command Xen is asked, for the log.
    pub fn interface(&self) -> impl core::fmt::Debug + use<> {
        self.command
    }
}

impl split_driver::domains::Domains for Domains {
    fn state(&self, domain: DomainId) -> Result<Option<DomainState>, XenError> {
        ask(self.command, domain)
    }

    fn next_changed(&self) -> Change {
        match self.command {
            Command::Info(_) => Change::Unknown,
            Command::State => {
                match call(XEN_DOMCTL_GET_DOMAIN_STATE, 0, DomainId::INVALID, &GetDomainState::default()) {
                    Ok((domain, _)) => Change::Of(domain),
                    Err(_) => Change::None,
                }
            }
        }
    }
}

/// One question.
fn ask(command: Command, domain: DomainId) -> Result<Option<DomainState>, XenError> {
    let answer = match command {
        Command::State => {
            call(XEN_DOMCTL_GET_DOMAIN_STATE, 0, domain, &GetDomainState::default()).map(|(_, state)| state_of(&state))
        }
        Command::Info(version) => call(XEN_DOMCTL_GETDOMAININFO, version, domain, &GetDomainInfo::new_zeroed())
            .map(|(_, info)| state_of_info(domain, &info)),
    };
    if answer == Err(XenError::Errno(ESRCH)) { Ok(None) } else { answer }
}

/// `None` where the number is nobody's any more.
fn state_of(state: &GetDomainState) -> Option<DomainState> {
    (state.state & XEN_DOMCTL_GETDOMSTATE_STATE_EXIST != 0).then_some(DomainState {
        shut_down: state.state & XEN_DOMCTL_GETDOMSTATE_STATE_SHUTDOWN != 0,
        gone: state.state & XEN_DOMCTL_GETDOMSTATE_STATE_DEAD != 0,
        unique: state.unique_id,
    })
}

/// `None` where Xen tells of the next domain instead. Older than unique numbers, a domain is told from its predecessor by its UUID.
fn state_of_info(domain: DomainId, info: &GetDomainInfo) -> Option<DomainState> {
    let [low, high] = zerocopy::transmute!(info.handle);
    let unique: u64 = u64::from_le_bytes(low) ^ u64::from_le_bytes(high);
    (info.domain == domain).then_some(DomainState {
        shut_down: info.flags & XEN_DOMINF_SHUTDOWN != 0,
        gone: info.flags & XEN_DOMINF_DYING != 0,
        unique,
    })
}

/// A domctl with its argument; gives the domain that Xen speaks of, and the argument as Xen left it.
fn call<T>(command: u32, version: u32, domain: DomainId, argument: &T) -> Result<(DomainId, T), XenError>
where
    T: FromBytes + IntoBytes + Immutable,
{
    let mut domctl = Domctl { cmd: command, interface_version: version, domain, padding: [0; 3], u: [0; 128] };
    let bytes = argument.as_bytes();
    if let Some(place) = domctl.u.get_mut(..bytes.len()) {
        place.copy_from_slice(bytes);
    }
    // SAFETY: the hypercall's struct, which Xen reads and writes; these two commands touch nothing else.
    hypercall::check(unsafe { hypercall::call2::<{ number::DOMCTL }>((&raw mut domctl) as u64, 0) })?;
    let (argument, _) = T::read_from_prefix(&domctl.u).map_err(|_| XenError::Exhausted)?;
    Ok((domctl.domain, argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_told_from_the_next_one_and_from_its_predecessor() {
        let mut info = GetDomainInfo::new_zeroed();
        info.domain = DomainId(7);
        info.flags = XEN_DOMINF_SHUTDOWN;
        info.handle[3] = 1;
        assert_eq!(state_of_info(DomainId(6), &info), None);
        let seven = state_of_info(DomainId(7), &info).expect("it is there");
        assert!(seven.shut_down && !seven.gone);
        info.handle[12] = 9;
        info.flags = XEN_DOMINF_DYING;
        let later = state_of_info(DomainId(7), &info).expect("it is there");
        assert!(later.gone && later.unique != seven.unique);
    }

    #[test]
    fn a_number_that_is_nobodys_has_no_state() {
        assert_eq!(state_of(&GetDomainState::default()), None);
        let state = GetDomainState { state: XEN_DOMCTL_GETDOMSTATE_STATE_EXIST, unique_id: 5, ..Default::default() };
        assert_eq!(state_of(&state), Some(DomainState { shut_down: false, gone: false, unique: 5 }));
    }
}
