//! What a hostile guest does costs that guest its vif, and nobody else anything.
