# SPDX-License-Identifier: GPL-3.0-or-later

"""The mini-internet that the scenarios share: images, names, keys, containers."""
