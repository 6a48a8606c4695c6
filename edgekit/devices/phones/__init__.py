"""Phones that are reached over adb."""
