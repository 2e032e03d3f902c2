"""The desk: told to tidy up, in English or Chinese, the arm puts things where they belong."""

from envs.tidy_desk.task import TidyDesk

ENV = TidyDesk
