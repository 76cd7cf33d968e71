"""Forecasts of the champion from the online store: service, live bars, log. No torch, no training."""

import pitwise as pitwise  # before any library can phone home
