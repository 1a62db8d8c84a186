"""The studio: draws a fictional presenter and her training clip from freely licensed sources.

`python -m tools.studio speech|stills|sheet|clip|dataset --out DIR`. Lengths are decimetres inside this
package (the unit of the source mesh), x to her left (the viewer's right), y up, z towards the viewer; what
leaves it is in metres.
"""
