//! The store begins anew under load, after a panic and as another image, and nobody notices. Host.

use std::time::Duration;

use anyhow::{Context, Result};

use super::load::under_load;
use super::{Case, Store};
use crate::stage::Stage;

pub(super) const CASES: &[Case<Store>] =
    &[Case { name: "store: a load of dom0 and four guests is answered rightly", run: quiet }];

fn quiet(stage: &&Stage) -> Result<String> {
    let done = under_load(&stage.lab, || {
        std::thread::sleep(Duration::from_secs(20));
        Ok(())
    })
    .context("without any restart")?;
    Ok(format!("{done:?}"))
}
