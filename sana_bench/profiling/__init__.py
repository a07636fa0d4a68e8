"""How fast a variant is, on what hardware, and what it costs: timers, memory, energy, clocks, arithmetic and rooflines."""
