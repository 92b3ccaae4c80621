//! Serves a NIC to QEMU, with the lab's wire as its cable: `serve SOCKET kx4|sfp|t3|x540|x550|82576|i350|i210|82574`. `up` and `down` on standard input
//! are the link's; `peek OFFSET` shows a register. The driver's offences are printed as they come. Host.
//!
//! QEMU takes it by `-device '{"driver":"vfio-user-pci","socket":{"path":"SOCKET","type":"unix"}}'`.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devices::bus::Model;
use devices::e1000e::E1000e;
use devices::igb::{self, Igb};
use devices::ixgbe::{self, Ixgbe};
use devices::vfio_user::{Server, State};
use wire::{Config, Wire};

const ADDRESS: [u8; 6] = [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(kind)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("serve SOCKET kx4|sfp|t3|x540|x550|82576|i350|i210|82574".into());
    };
    match kind.as_str() {
        "kx4" => serve(Ixgbe::new(ixgbe::Kind::Kx4, ADDRESS), socket),
        "sfp" => serve(Ixgbe::new(ixgbe::Kind::Sfp, ADDRESS), socket),
        "t3" => serve(Ixgbe::new(ixgbe::Kind::T3, ADDRESS), socket),
        "x540" => serve(Ixgbe::new(ixgbe::Kind::X540, ADDRESS), socket),
        "x550" => serve(Ixgbe::new(ixgbe::Kind::X550, ADDRESS), socket),
        "82576" => serve(Igb::new(igb::Kind::I82576, ADDRESS), socket),
        "i350" => serve(Igb::new(igb::Kind::I350, ADDRESS), socket),
        "i210" => serve(Igb::new(igb::Kind::I210, ADDRESS), socket),
        "82574" => serve(E1000e::new(ADDRESS), socket),
        other => Err(format!("{other} is no kind of card").into()),
    }
}

fn serve<M: Model + Send + 'static>(model: M, socket: PathBuf) -> Result<(), Box<dyn Error>> {
    let cable = socket.with_extension("wire");
    let wire = Wire::start(Config::new(&cable, 1))?;
    let server = Arc::new(Server::start(model, socket, Some(cable))?);
    let commanded = Arc::clone(&server);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            match line.split_whitespace().collect::<Vec<_>>().as_slice() {
                ["up"] => commanded.with_model(|model| model.set_link(true)),
                ["down"] => commanded.with_model(|model| model.set_link(false)),
                ["peek", offset] => match usize::from_str_radix(offset.trim_start_matches("0x"), 16) {
                    Ok(offset) => println!("{offset:#07x}: {:#010x}", commanded.with_model(|model| model.peek(offset))),
                    Err(error) => println!("{offset}: {error}"),
                },
                _ => println!("up, down, peek OFFSET"),
            }
        }
    });
    let mut told = 0;
    loop {
        let misuse = server.misuse();
        for offence in misuse.iter().skip(told) {
            println!("misuse: {offence}");
        }
        told = misuse.len();
        if let State::Ended(reason) = server.state() {
            println!("{:?}", wire.stats());
            return reason.map_or(Ok(()), |reason| Err(reason.into()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
