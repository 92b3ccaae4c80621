//! The services of the wire's peer. Host.

mod tcp;
mod udp;

pub(crate) use tcp::TcpServices;
pub(crate) use udp::UdpServices;

use std::net::SocketAddr;

use smoltcp::wire::IpEndpoint;

/// smoltcp's endpoint in the standard library's form.
fn socket_address(endpoint: IpEndpoint) -> SocketAddr {
    SocketAddr::new(endpoint.addr.into(), endpoint.port)
}
