use std::time::Duration;

/// A water boiler: the heater works towards the setpoint, the room takes heat away.
///
/// One mass of water at one temperature, losses proportional to the difference to the room, and a heater whose power
/// falls off over the last 2 °C below the setpoint and then just covers the losses, so that the setpoint is reached
/// and held. Temperatures are in °C, power in W.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boiler {
    /// Temperature of the water.
    pub water: f64,
    /// Temperature that the heater works towards.
    pub setpoint: f64,
    /// Temperature of the room.
    pub ambient: f64,
    /// Whether the heater may work.
    pub enabled: bool,
    /// Greatest power of the heater.
    pub max_power: f64,
    /// Heat capacity of the water in J/K.
    pub capacity: f64,
    /// Losses in W per °C above the room.
    pub loss: f64,
}

impl Default for Boiler {
    /// Ten litres at room temperature, a heater of 2 kW that is enabled, and a setpoint of 45 °C.
    fn default() -> Self {
        Self {
            water: 20.0,
            setpoint: 45.0,
            ambient: 20.0,
            enabled: true,
            max_power: 2000.0,
            capacity: 41_860.0,
            loss: 5.0,
        }
    }
}

impl Boiler {
    /// Width of the band below the setpoint in which the heater gives less than its full power.
    const BAND: f64 = 2.0;
    /// Longest stretch for which the power is taken as constant.
    const STRETCH: f64 = 1.0;

    /// What the heater gives now.
    pub fn power(&self) -> f64 {
        if !self.enabled {
            return 0.0;
        }
        let losses = self.loss * (self.setpoint - self.ambient);
        let demand = self.max_power * (self.setpoint - self.water) / Self::BAND + losses;
        demand.clamp(0.0, self.max_power)
    }

    /// Whether the heater gives any heat.
    pub fn heater_on(&self) -> bool {
        self.power() > 0.0
    }

    /// The boiler after `dt`.
    #[must_use]
    pub fn step(self, dt: Duration) -> Self {
        let mut boiler = self;
        let mut left = dt.as_secs_f64();
        while left > 0.0 {
            let stretch = left.min(Self::STRETCH);
            // With constant power the temperature approaches its rest point exponentially: exact for any stretch.
            let rest = boiler.ambient + boiler.power() / boiler.loss;
            let before = boiler.water;
            boiler.water = rest + (before - rest) * (-stretch * boiler.loss / boiler.capacity).exp();
            if (boiler.water - before).abs() < 1e-9 {
                break;
            }
            left -= stretch;
        }
        boiler
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_heater_reaches_and_holds_the_setpoint() {
        let cold = Boiler::default();
        let warmer = cold.step(MINUTE);
        assert!(warmer.water > 22.0 && warmer.water < 24.0, "2 kW warm ten litres by 2.9 °C a minute: {warmer:?}");
        let warm = cold.step(30 * MINUTE);
        assert!((warm.water - 45.0).abs() < 0.05, "{warm:?}");
        assert!((warm.power() - 125.0).abs() < 60.0, "the heater covers the losses: {}", warm.power());
        assert_eq!(warm.step(Duration::ZERO), warm);
    }

    #[test]
    fn without_heater_the_room_wins() {
        let hot = Boiler { water: 60.0, enabled: false, ..Boiler::default() };
        assert!(!hot.heater_on());
        let cooler = hot.step(10 * MINUTE);
        assert!(cooler.water < 58.0 && cooler.water > 56.0, "{cooler:?}");
        assert!((hot.step(Duration::MAX).water - 20.0).abs() < 0.01, "even for ever takes no time");
        let off = Boiler { water: 60.0, setpoint: 45.0, ..Boiler::default() };
        assert!(!off.heater_on(), "above the setpoint it does not heat");
    }

    #[test]
    fn many_small_steps_are_one_large_one() {
        let one = Boiler::default().step(MINUTE);
        let many = (0..240).fold(Boiler::default(), |boiler, _| boiler.step(MINUTE / 240));
        assert!((one.water - many.water).abs() < 0.01, "{one:?} {many:?}");
    }
}
