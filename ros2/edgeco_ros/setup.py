from glob import glob

from setuptools import setup

NAME = "edgeco_ros"

setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", glob("launch/*.launch.py")),
        (f"share/{NAME}/config", glob("config/*.yaml")),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="The edgeco authors",
    maintainer_email="edgeco@users.noreply.github.com",
    description="A lifecycle node that runs an edgeco bundle and publishes classifications.",
    license="Apache-2.0",
    entry_points={"console_scripts": [f"classifier = {NAME}.node:main"]},
)
