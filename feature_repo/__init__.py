"""The market in Feast: definitions, the offline store and how features are published."""

import pitwise as pitwise  # before any library can phone home
